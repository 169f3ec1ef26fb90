//go:build unix

package signals

import (
	"os"
	"syscall"
)

// finishes returns the signals upon which running tasks may finish.
func finishes() []os.Signal { return []os.Signal{syscall.SIGUSR1} }
