//go:build !linux

package supervisor

// Main does nothing: there are supervisors on Linux only.
func Main() int { return 1 }
