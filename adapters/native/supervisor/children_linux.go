package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// children are all processes below the supervisor: those it started, and the
// orphans of those, which the kernel makes its children.
type children struct {
	isolated bool

	mu      sync.Mutex
	changed sync.Cond
	started map[int]chan exit
	spawned int   // processes ever started
	none    bool  // there is no process left
	closed  error // why no process may be started any more; nil if one may
}

// exit is how a process ended.
type exit struct {
	status unix.WaitStatus
	usage  unix.Rusage
}

var (
	errKilled  = errors.New("the task was killed")
	errStopped = errors.New("the task was told to stop")
)

func newChildren(isolated bool) *children {
	c := &children{isolated: isolated, started: map[int]chan exit{}, none: true}
	c.changed.L = &c.mu
	go c.reap()
	return c
}

// start starts a process with fork. The channel yields how it ended.
func (c *children) start(fork func() (int, error)) (<-chan exit, error) {
	c.mu.Lock() // until the process is known, so that it is not reaped before
	defer c.mu.Unlock()
	if c.closed != nil {
		return nil, c.closed
	}
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	done := make(chan exit, 1)
	c.started[pid] = done
	c.spawned++
	c.none = false
	c.changed.Broadcast()
	return done, nil
}

// reap collects the processes that end.
func (c *children) reap() {
	for {
		c.mu.Lock()
		for c.none {
			c.changed.Wait()
		}
		spawned := c.spawned
		c.mu.Unlock()

		var x exit
		pid, err := unix.Wait4(-1, &x.status, unix.WALL, &x.usage)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		c.mu.Lock()
		if err != nil {
			c.none = c.spawned == spawned
		} else if done, ok := c.started[pid]; ok {
			delete(c.started, pid)
			done <- x
		}
		c.changed.Broadcast()
		c.mu.Unlock()
	}
}

// signal sends a signal to all processes.
func (c *children) signal(s unix.Signal) {
	if c.isolated {
		// To the first process of a PID namespace this means every other one
		// in it, and none can be forked meanwhile.
		_ = unix.Kill(-1, s) // fails if there is none
		return
	}
	lists, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is valid
	for _, list := range lists {
		pids, err := os.ReadFile(list) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = unix.Kill(n, s) // fails if it has just ended
			}
		}
	}
}

// terminate sends SIGTERM to the processes that the supervisor has started, but
// not to those that they have.
func (c *children) terminate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pid := range c.started {
		_ = unix.Kill(pid, unix.SIGTERM) // fails if it has just ended
	}
}

// close keeps processes from being started.
func (c *children) close(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = why
}

// killAll kills every process and returns when there is none. Outside a
// namespace, killing a process makes its children visible, and so on.
func (c *children) killAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = errKilled
	for !c.none {
		c.signal(unix.SIGKILL)
		c.changed.Wait()
	}
}
