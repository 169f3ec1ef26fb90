package journalfile

import (
	"errors"
	"os"
	"syscall"
)

// syncContent has the content of f survive a crash of the host. The times of
// the file need not.
func syncContent(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
