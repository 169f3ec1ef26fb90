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

// WorkerSeen reports whether the worker that the task is bound to is seen to have
// the file locked. If not, it has ended already, or locks do not reach into the
// container.
func (w *Writer) WorkerSeen() bool {
	fd := int(w.f.Fd())
	err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		_ = unix.Flock(fd, unix.LOCK_UN)
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

// AwaitWorkersEnd waits for the end of the worker that the task is bound to, which
// was seen before.
func (w *Writer) AwaitWorkersEnd() error {
	for {
		if err := unix.Flock(int(w.f.Fd()), unix.LOCK_SH); !errors.Is(err, unix.EINTR) {
			return err
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
