//go:build unix

package journalfile

import (
	"errors"
	"os"
	"syscall"
)

// tryLock reports whether it could lock f, which is unlocked when f is closed.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}

// syncDir has the names in a directory survive a crash of the host.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: the operator chose it
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
