package transcript

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const noFollow = unix.O_NOFOLLOW

// lock locks a file for as long as this process has it open.
func lock(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// AwaitWorkersEnd waits for the end of the worker that the task is bound to. It
// returns false, at once, where it is not seen that the worker has locked the
// file: either it has ended already, or locks do not reach into the container.
func (w *Writer) AwaitWorkersEnd() bool {
	fd := int(w.f.Fd())
	if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return false
	}
	for {
		if err := unix.Flock(fd, unix.LOCK_SH); !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// punch frees a part of a file, where the file system can.
func punch(f *os.File, from, size int64) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, size)
	})
	if errors.Is(failed, unix.EOPNOTSUPP) {
		failed = nil
	}
	return errors.Join(err, failed)
}
