package docker

// Sampled has what tasks use measured by samples, as where the daemon leaves
// control groups to systemd.
func (e *Engine) Sampled() { e.groups = nil }
