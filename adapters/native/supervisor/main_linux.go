package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Main runs the supervisor and returns its exit code, once the worker is gone.
func Main() int {
	// The heap is a few hundred kilobytes, so that collecting it costs nothing
	// and not collecting it would cost every idle supervisor a megabyte.
	debug.SetGCPercent(25)
	// What the supervisor holds is not for the task. No descriptor it makes
	// itself is inheritable, so that this is the only place to see to it.
	if err := unix.CloseRange(ListenerFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 1
	}
	fd, _, err := unix.Accept4(ListenerFD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return 1
	}
	conn := os.NewFile(uintptr(fd), "control")
	defer func() { _ = conn.Close() }()

	requests := json.NewDecoder(conn)
	var first Request
	if err := requests.Decode(&first); err != nil || first.Setup == nil {
		return 1
	}
	events := newSender(conn)
	t, err := newTask(first.Setup, events)
	if err != nil {
		events.send(Event{Failed: err.Error()})
		events.flush()
		return 1
	}
	events.send(Event{Ready: true})
	serve(requests, t)
	return 0
}

// serve handles requests until the worker is gone.
func serve(requests *json.Decoder, t *task) {
	for {
		var r Request
		if err := requests.Decode(&r); err != nil {
			t.killAll()
			return
		}
		switch {
		case r.Start != nil:
			go t.run(*r.Start)
		case r.Kill != nil:
			t.kill(r.Kill.Grace)
		}
	}
}

// newTask puts the surroundings of the task in order.
func newTask(s *Setup, events *sender) (*task, error) {
	unix.Umask(0o022)
	_ = os.WriteFile("/proc/self/comm", []byte(Name), 0) // for who looks at a list of processes
	if s.Isolated {
		if err := enter(s); err != nil {
			return nil, err
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
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
