package docker

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot returns the time since the host was started, which nobody sets.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
