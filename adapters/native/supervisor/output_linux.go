package supervisor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// output moves what the task writes from a pipe, which is all that the task
// gets to hold, to a file. It never stops reading: what cannot be stored is
// counted and dropped, so that a full disk does not block the task.
type output struct {
	events *history
	file   *os.File
	write  *os.File // the task's end of the pipe
	read   *os.File
	raw    syscall.RawConn

	forgotten int64 // bytes that were freed; for who serves the worker

	mu      sync.Mutex
	buf     [32 << 10]byte
	size    int64 // bytes stored
	dropped int64
	cause   error
}

func newOutput(file *os.File, s *Setup, events *history) (*output, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if s.Switch {
		// So that the task can open /dev/stdout and /dev/stderr, which is to
		// open the pipe anew.
		if err := unix.Fchown(p[1], int(s.UID), int(s.GID)); err != nil {
			return nil, fmt.Errorf("give pipe to the task: %w", err)
		}
	}
	// Only the reading end may be without blocking, as the task holds the other.
	if err := unix.SetNonblock(p[0], true); err != nil {
		return nil, err
	}
	o := &output{events: events, file: file}
	o.read, o.write = os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe")
	var err error
	if o.raw, err = o.read.SyscallConn(); err != nil {
		return nil, err
	}
	go o.pump()
	return o, nil
}

// pump stores what the task writes, for as long as the supervisor lives.
func (o *output) pump() {
	for {
		// Readiness is told once, so waiting for it must not leave anything in
		// the pipe; letting go of the lock between turns lets sync have one.
		err := o.raw.Read(func(fd uintptr) bool { return !o.move(int(fd), 256<<10) })
		if err != nil {
			return
		}
	}
}

// sync stores what was in the pipe when it was called. Unlike waiting for the end of the pipe, it cannot be
// held up by someone who keeps writing, or who has passed the pipe on.
func (o *output) sync() {
	_ = o.raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			o.move(int(fd), n)
		}
	})
}

// move stores up to about limit bytes of what is in the pipe, and reports
// whether it has emptied the pipe.
func (o *output) move(fd, limit int) (emptied bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for moved := 0; moved < limit; {
		n, err := unix.Read(fd, o.buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return true
		}
		moved += n
		written, err := o.file.Write(o.buf[:n])
		if err != nil {
			o.dropped += int64(n - written)
			o.cause = err
		}
		o.size += int64(written)
		o.events.grown(o.size)
	}
	return false
}

// forget frees the first bytes, up to the given size, where the file system can:
// nobody is going to read them again.
func (o *output) forget(size int64) {
	from := o.forgotten
	o.mu.Lock()
	size = min(size, o.size)
	o.mu.Unlock()
	if size <= from {
		return
	}
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(int(o.file.Fd()), mode, from, size-from); err == nil {
		o.forgotten = size
	}
}

// lost returns how much output was dropped, and why.
func (o *output) lost() (n int64, cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cause == nil {
		return 0, ""
	}
	cause = o.cause.Error()
	if errno, ok := errors.AsType[syscall.Errno](o.cause); ok {
		cause = errno.Error()
	}
	return o.dropped, cause
}
