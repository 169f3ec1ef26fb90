package journalfile

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock reports whether it could lock f, which is unlocked when f is closed.
// The byte that is locked is beyond those that say who has the lock, which can
// thus be read.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// syncDir does nothing: the file system keeps a journal of names.
func syncDir(string) error { return nil }
