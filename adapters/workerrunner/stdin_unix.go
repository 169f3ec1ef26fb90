//go:build unix

package workerrunner

import (
	"fmt"
	"os"
	"syscall"
)

// Stdin returns the standard input of this process such that closing it ends a
// Read, where it is a pipe. It takes the place of os.Stdin.
func Stdin() (*os.File, error) {
	fd := int(os.Stdin.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return os.NewFile(uintptr(fd), os.Stdin.Name()), nil
}
