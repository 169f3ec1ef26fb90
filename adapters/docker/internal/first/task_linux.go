package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// task is the task that the container is for.
type task struct {
	w        *transcript.Writer
	spec     transcript.Spec
	children *children
	out      *output // nil where each command has a terminal of its own
	signaled atomic.Bool
}

// passSignals passes on to the command what the first process is sent, which
// itself sees the task through.
func (t *task) passSignals() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	for s := range signals {
		if s == unix.SIGTERM { // of the others, the daemon sends none
			t.signaled.Store(true)
		}
		if s, ok := s.(syscall.Signal); ok {
			t.children.signal(s)
		}
	}
}

// watchWorker ends the task where no worker has come for long, or with the one
// that it is bound to, if that is seen.
func (t *task) watchWorker(bound bool) {
	if bound && t.w.AwaitWorkersEnd() == nil {
		exitKilled()
	}
	if t.spec.Patience <= 0 {
		return
	}
	interval := min(max(t.spec.Patience/4, time.Millisecond), 15*time.Second)
	last, seen := t.w.Beat(), time.Now()
	for range time.Tick(interval) {
		if beat := t.w.Beat(); beat != last {
			last, seen = beat, time.Now()
		} else if time.Since(seen) > t.spec.Patience {
			exitKilled()
		}
	}
}

// exitKilled ends the first process as though it was killed, and all others with it.
func exitKilled() { os.Exit(128 + int(unix.SIGKILL)) }

// awaitGo waits until the worker has all in place that the task needs.
func (t *task) awaitGo() {
	const interval = 2 * time.Millisecond
	for !t.w.MayGo() {
		<-time.After(interval)
	}
}

// run executes the commands, until one fails, and returns the exit code of the
// last.
func (t *task) run() int {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return t.end(transcript.Executed{Failed: err.Error(), ExitCode: 126}, transcript.Executed{}, false)
	}
	if !t.spec.TTY {
		if t.out, err = newOutput(t.w, false); err != nil {
			return t.end(transcript.Executed{Failed: err.Error(), ExitCode: 126}, transcript.Executed{}, false)
		}
	}
	var total transcript.Executed
	for i, argv := range t.spec.Commands {
		t.w.Event(transcript.Event{Executing: &i})
		x := t.execute(i, argv, null)
		total.Wall += x.Wall
		total.User += x.User
		total.Kernel += x.Kernel
		total.MaxRSS = max(total.MaxRSS, x.MaxRSS)
		last := i == len(t.spec.Commands)-1
		if x.ExitCode != 0 || last || t.children.wasStopped() {
			return t.end(x, total, !last)
		}
		t.w.Event(transcript.Event{Executed: &x})
	}
	return t.end(transcript.Executed{Failed: "there is no command", ExitCode: 127}, total, false)
}

// end ends the transcript, before the last command if the task was stopped.
func (t *task) end(last, total transcript.Executed, early bool) int {
	err := t.w.Done(transcript.Done{
		Last: last, Total: total, Signaled: t.signaled.Load(), Stopped: early && t.children.wasStopped(),
	})
	if err != nil {
		return exitUnusable
	}
	return last.ExitCode
}

// execute executes one command to its end, and to the end of what it prints.
func (t *task) execute(index int, argv []string, null *os.File) transcript.Executed {
	x := transcript.Executed{Index: index, ExitCode: 127}
	path, err := exec.LookPath(argv[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		x.Failed = err.Error()
		if errors.Is(err, os.ErrPermission) {
			x.ExitCode = 126
		}
		return x
	}
	began := time.Now()
	exited, out, err := t.start(path, argv, null)
	if err != nil {
		x.Failed, x.ExitCode = fmt.Sprintf("%s: %v", path, err), 126
		return x
	}
	defer out.sync()
	end := <-exited
	x.Wall = time.Since(began)
	x.User, x.Kernel = time.Duration(end.usage.Utime.Nano()), time.Duration(end.usage.Stime.Nano())
	x.MaxRSS = int64(end.usage.Maxrss) << 10 //nolint:unconvert // its size depends on the architecture
	x.ExitCode = end.status.ExitStatus()
	if end.status.Signaled() {
		x.ExitCode = 128 + int(end.status.Signal())
	}
	return x
}

// start starts a command, and returns what it prints to.
func (t *task) start(path string, argv []string, null *os.File) (_ <-chan exit, out *output, err error) {
	attributes := &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}}
	if t.spec.TTY {
		if out, err = newOutput(t.w, true); err != nil {
			return nil, nil, err
		}
		defer func() { _ = out.task.Close() }()
		attributes.Files = []uintptr{out.task.Fd(), out.task.Fd(), out.task.Fd()}
		attributes.Sys.Setctty = true
		if !slices.ContainsFunc(attributes.Env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
			attributes.Env = append(attributes.Env, "TERM=xterm")
		}
	} else {
		out = t.out
		attributes.Files = []uintptr{null.Fd(), out.task.Fd(), out.task.Fd()}
	}
	exited, err := t.children.start(func() (int, error) {
		return syscall.ForkExec(path, argv, attributes) //nolint:gosec // this is what it is for
	})
	return exited, out, err
}
