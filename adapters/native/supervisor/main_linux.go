package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Main runs the supervisor and returns its exit code, once a worker has ended
// it, or there is none.
func Main() int {
	// The heap is a few hundred kilobytes, so that collecting it costs nothing
	// and not collecting it would cost every idle supervisor a megabyte.
	debug.SetGCPercent(25)
	// What the supervisor holds is not for the task. No descriptor it makes
	// itself is inheritable, so that this is the only place to see to it.
	if err := unix.CloseRange(ListenerFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 1
	}
	conn, err := accept(-1)
	if err != nil {
		return 1
	}
	requests := json.NewDecoder(conn)
	var first Request
	if err := requests.Decode(&first); err != nil || first.Setup == nil {
		return 1
	}
	t, err := newTask(first.Setup)
	if err != nil {
		_ = json.NewEncoder(conn).Encode(Event{Failed: err.Error()}) // or nobody is interested
		return 1
	}
	if err := json.NewEncoder(conn).Encode(Event{Ready: true}); err != nil {
		return 1
	}
	for {
		s := t.events.tell(conn)
		if end := serve(requests, t); end || t.start == nil || t.setup.OrphanTimeout < 0 {
			break // with the connection, by whose end the worker knows that all has ended
		}
		s.stop()
		t.out.keep()
		if conn, err = t.reattached(); err != nil {
			break
		}
		t.out.lift()
		requests = json.NewDecoder(conn)
	}
	t.children.killAll()
	return 0
}

// accept waits for a worker, for as long as timeout if that is not negative.
func accept(timeout time.Duration) (*os.File, error) {
	deadline := time.Now().Add(timeout)
	for {
		wait := -1
		if timeout >= 0 {
			wait = int(min(max(0, time.Until(deadline).Milliseconds()), math.MaxInt32))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: ListenerFD, Events: unix.POLLIN}}, wait)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, os.ErrDeadlineExceeded
		}
		fd, _, err := unix.Accept4(ListenerFD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "control"), nil
	}
}

// reattached waits for the next worker, and greets it.
func (t *task) reattached() (*os.File, error) {
	conn, err := accept(t.setup.OrphanTimeout)
	if err != nil {
		return nil, err
	}
	// A worker that does not take it is noticed where requests are read.
	_ = json.NewEncoder(conn).Encode(Event{Hello: &Hello{
		Protocol: Protocol,
		Run:      t.start.Run,
		Setup:    t.setup,
		Commands: t.start.Commands,
		Groups:   t.start.Groups,
		Elapsed:  time.Since(t.began),

		Forgotten: t.out.forgotten,
	}})
	return conn, nil
}

// serve handles requests until the worker is gone. It reports whether that has
// asked the supervisor to end.
func serve(requests *json.Decoder, t *task) (end bool) {
	for {
		var r Request
		if err := requests.Decode(&r); err != nil {
			return false
		}
		switch {
		case r.Start != nil && t.start == nil:
			t.start, t.began = r.Start, time.Now()
			go t.run(r.Start)
		case r.Kill != nil:
			t.kill(r.Kill.Grace)
		case r.Stop:
			t.stop()
		case r.Logged != nil:
			t.out.forget(*r.Logged)
		case r.End:
			return true
		}
	}
}

// catchSignals keeps a task of the supervisor's own user from ending it. The
// kernel spares the first process of a namespace from signals of the others, but
// for those that it has a handler for, as the runtime has.
func catchSignals() {
	signal.Notify(make(chan os.Signal, 1), // which nobody reads
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS,
		unix.SIGFPE, unix.SIGSEGV, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGSYS)
}

// newTask puts the surroundings of the task in order.
func newTask(s *Setup) (*task, error) {
	unix.Umask(0o022)
	_ = os.WriteFile("/proc/self/comm", []byte(Name), 0) // for who looks at a list of processes
	if s.Isolated {
		if err := enter(s); err != nil {
			return nil, err
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	if s.Isolated && !s.Switch {
		catchSignals()
	}
	events := newHistory()
	out, err := newOutput(os.NewFile(OutputFD, "output"), s, events)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	t := &task{setup: s, events: events, out: out, null: null}
	t.children = newChildren(s.Isolated)
	ready := make(chan error)
	t.spawns = make(chan spawn)
	go t.spawner(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}
