//go:build unix

package hostpower

func arguments(action Action, why string) []string {
	if action == Reboot {
		return []string{"-r", "now", why}
	}
	return []string{"-h", "now", why}
}
