package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// children are all processes of the container: those that were started here,
// and the orphans of those.
type children struct {
	changed chan os.Signal

	mu      sync.Mutex
	started map[int]chan exit
	stopped bool // nothing is to be started any more
}

var errStopped = errors.New("the task was told to stop")

// exit is how a process ended.
type exit struct {
	status unix.WaitStatus
	usage  unix.Rusage
}

func newChildren() *children {
	c := &children{changed: make(chan os.Signal, 1), started: map[int]chan exit{}}
	signal.Notify(c.changed, unix.SIGCHLD)
	return c
}

// start starts a process with fork. The channel yields how it ended.
func (c *children) start(fork func() (int, error)) (<-chan exit, error) {
	c.mu.Lock() // until the process is known, so that it is not reaped before
	defer c.mu.Unlock()
	if c.stopped {
		return nil, errStopped
	}
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	done := make(chan exit, 1)
	c.started[pid] = done
	return done, nil
}

// reap collects the processes that end, for ever.
func (c *children) reap() {
	for range c.changed {
		for c.reapOne() {
		}
	}
}

// reapOne reports whether there was one.
func (c *children) reapOne() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var x exit
	pid, err := unix.Wait4(-1, &x.status, unix.WNOHANG|unix.WALL, &x.usage)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || pid == 0 {
		return false
	}
	if done, ok := c.started[pid]; ok {
		delete(c.started, pid)
		done <- x
	}
	return true
}

// signal sends a signal to what was started here, but not to what that has
// started. After SIGTERM, nothing more is started.
func (c *children) signal(s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = c.stopped || s == unix.SIGTERM
	for pid := range c.started {
		_ = unix.Kill(pid, s) // it is not reaped yet
	}
}

func (c *children) wasStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}
