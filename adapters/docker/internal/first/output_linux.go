package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// output moves what commands print to the transcript, through a pipe or a
// terminal: a file would be the task's to truncate. It goes on for as long as
// any process holds the other end.
type output struct {
	w     *transcript.Writer
	tty   bool
	task  *os.File // the task's end
	read  *os.File
	raw   syscall.RawConn
	ended chan struct{} // closed when there is nothing more to be read

	hurried atomic.Bool // what is there is read, though nobody has logged what was

	mu  sync.Mutex
	buf [transcript.MostOutput]byte
}

func newOutput(w *transcript.Writer, tty bool) (*output, error) {
	o := &output{w: w, tty: tty, ended: make(chan struct{})}
	open := o.openPipe
	if tty {
		open = o.openTerminal
	}
	if err := open(); err != nil {
		return nil, err
	}
	var err error
	if o.raw, err = o.read.SyscallConn(); err != nil {
		return nil, err
	}
	go o.pump()
	return o, nil
}

func (o *output) openPipe() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	// Only the reading end may be without blocking, as the task holds the other.
	if err := unix.SetNonblock(p[0], true); err != nil {
		return err
	}
	o.read, o.task = os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe")
	return nil
}

func (o *output) openTerminal() error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make terminal: %w", err)
	}
	o.read = os.NewFile(uintptr(master), "terminal")
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	slave := -1
	if err == nil {
		slave, err = unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make terminal: %w", err), o.read.Close())
	}
	o.task = os.NewFile(uintptr(slave), "terminal")
	return nil
}

// pump stores what the task writes.
func (o *output) pump() {
	defer close(o.ended)
	defer func() { _ = o.read.Close() }()
	for ended := false; !ended; {
		o.awaitRoom()
		// Letting go of the lock between turns lets sync have one.
		err := o.raw.Read(func(fd uintptr) bool {
			var emptied bool
			emptied, ended = o.move(int(fd), 4*len(o.buf))
			return !emptied || ended || !o.hasRoom()
		})
		if err != nil {
			return
		}
	}
}

// awaitRoom waits for as long as the backlog is full, so that a task does not fill
// the disk with what nobody reads. It blocks the task, but not its end.
func (o *output) awaitRoom() {
	const interval = 10 * time.Millisecond
	for !o.hasRoom() {
		<-time.After(interval)
	}
}

func (o *output) hasRoom() bool { return o.w.HasRoom() || o.hurried.Load() }

// move stores up to about limit bytes, and reports whether there are no more now,
// and none ever.
func (o *output) move(fd, limit int) (emptied, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for moved := 0; moved < limit; {
		n, err := unix.Read(fd, o.buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return true, false
		case err != nil || n <= 0: // a terminal that nobody has open fails
			return true, true
		default:
			moved += n
			o.w.Output(o.buf[:n])
		}
	}
	return false, false
}

// sync stores what has been written, whether or not the backlog is full. It waits
// for nobody who goes on writing.
func (o *output) sync() {
	if o.tty {
		o.hurried.Store(true)
		defer o.hurried.Store(false)
		// The kernel passes on in the background what was written to a
		// terminal: its end is seen, unless a process holds it still.
		select {
		case <-o.ended:
		case <-time.After(50 * time.Millisecond):
		}
	}
	_ = o.raw.Control(func(fd uintptr) { // fails where all was read
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			o.move(int(fd), n)
		}
	})
}
