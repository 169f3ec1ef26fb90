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
// gets to hold, to a file. What cannot be stored is counted and dropped, so that
// a full disk does not block the task. It stops reading only while no worker has
// put in the log what there is already, so that a task does not fill the disk
// with what nobody reads; it then blocks the task, but not its end.
type output struct {
	events *history
	file   *os.File
	write  *os.File // the task's end of the pipe
	read   *os.File
	raw    syscall.RawConn
	most   int64 // see Setup.Backlog

	forgotten int64 // bytes that were freed; for who serves the worker

	mu      sync.Mutex
	room    sync.Cond // signaled where there may be room in the backlog
	buf     [32 << 10]byte
	size    int64 // bytes stored
	logged  int64 // bytes that are in the log
	backlog int64 // bytes that may be stored and not logged now; 0 for any number
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
	o := &output{events: events, file: file, most: s.Backlog, backlog: s.Backlog}
	o.room.L = &o.mu
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
		o.awaitRoom()
		// Readiness is told once, so waiting for it must not leave anything in
		// the pipe; letting go of the lock between turns lets sync have one.
		err := o.raw.Read(func(fd uintptr) bool { return !o.move(int(fd), 256<<10) || o.full() })
		if err != nil {
			return
		}
	}
}

// awaitRoom waits for as long as the backlog is full.
func (o *output) awaitRoom() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.isFull() {
		o.room.Wait()
	}
}

func (o *output) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.isFull()
}

// isFull reports whether the backlog is full. It needs the lock.
func (o *output) isFull() bool { return o.backlog > 0 && o.size-o.logged >= o.backlog }

// lift has the backlog be without a limit, until a worker tells what it has
// logged, or the limit is kept again.
func (o *output) lift() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.backlog = 0
	o.room.Signal()
}

// keep has the backlog have its limit.
func (o *output) keep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.backlog = o.most
}

// sync stores what was in the pipe when it was called, whether or not the
// backlog is full. Unlike waiting for the end of the pipe, it cannot be held up
// by someone who keeps writing, or who has passed the pipe on.
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
// they are in the log, and nobody is going to read them again.
func (o *output) forget(size int64) {
	from := o.forgotten
	o.mu.Lock()
	size = min(size, o.size)
	o.logged, o.backlog = max(o.logged, size), o.most
	o.room.Signal()
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
