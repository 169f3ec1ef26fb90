package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/worker"
)

// Handover has a worker make way for the next process, with tasks that go on:
//
//   - SIGHUP: the program that the process was started from, in the version that
//     is there now, takes the place of the process, with its arguments;
//   - SIGUSR2: the process ends. Whoever sends it takes over.
type Handover struct {
	program  string   // path, as the process was started
	check    []string // arguments with which the next program checks its configuration
	received chan os.Signal
	restart  atomic.Bool
	left     atomic.Bool // the worker has made way
}

// Signals of a Handover.
const (
	replaceSignal = syscall.SIGHUP
	makeWaySignal = syscall.SIGUSR2
)

// checkTime bounds the check of the next program.
const checkTime = 30 * time.Second

// NewHandover heeds the signals from now on. The program with the arguments of
// check fails where it could not start: then it takes nobody's place. The
// returned function gives the signals back their effect.
func NewHandover(check ...string) (*Handover, func()) {
	h := &Handover{program: programOf(os.Args[0]), check: check, received: make(chan os.Signal, 4)}
	signal.Notify(h.received, replaceSignal, makeWaySignal)
	return h, func() { signal.Stop(h.received) }
}

// programOf returns the path by which this program is called as name: that of a
// link may be another program by the time of an upgrade, unlike what it led to.
func programOf(name string) string {
	program, err := os.Executable()
	if err != nil {
		return name
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil || !sameFile(path, program) {
		return program // the name is whatever its parent liked
	}
	return path
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a) //nolint:gosec // G703: what this process was started as
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// watch has a worker make way when it is time, until the returned function is
// called. A nil Handover never does.
func (h *Handover) watch(ctx context.Context, w *worker.Worker, log *slog.Logger) (stop func()) {
	if h == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			var s os.Signal
			select {
			case s = <-h.received:
			case <-ctx.Done():
				return
			}
			if s == replaceSignal {
				if err := h.try(ctx); err != nil {
					log.ErrorContext(ctx, "the worker stays: the next one could not start", slog.Any("error", err))
					continue
				}
				h.restart.Store(true)
			}
			w.MakeWay()
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// made notes that the worker has made way.
func (h *Handover) made() {
	if h != nil {
		h.left.Store(true)
	}
}

// try checks the next program.
func (h *Handover) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, h.check...) //nolint:gosec // it is this program
	cmd.Args[0] = os.Args[0]
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Next has the next program take the place of this process, if it is to. It
// returns only if it is not, or why it cannot.
func (h *Handover) Next() error {
	if !h.restart.Load() || !h.left.Load() {
		return nil
	}
	return fmt.Errorf("start the next worker: %w", syscall.Exec(h.program, os.Args, os.Environ())) //nolint:gosec // it is this program
}

// askToMakeWay asks a process to make way that has locked a file.
func askToMakeWay(pid int, lock string) error {
	if !hasOpen(pid, lock) {
		return errors.New("the process that uses the directory cannot be told for sure")
	}
	return syscall.Kill(pid, makeWaySignal)
}

// hasOpen reports whether a process has a file open.
func hasOpen(pid int, path string) bool {
	want, err := os.Stat(path)
	if err != nil {
		return false
	}
	descriptors, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		return false
	}
	for _, d := range descriptors {
		if found, err := os.Stat(d); err == nil && os.SameFile(found, want) {
			return true
		}
	}
	return false
}
