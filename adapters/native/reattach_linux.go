package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// helloPatience is how long a supervisor may take to greet a worker.
const helloPatience = 10 * time.Second

// orphan is a supervisor with a task of an earlier worker.
type orphan struct {
	dir string
	run task.RunID
}

// findOrphan returns the orphan with a directory, or nil if there is none.
func (e *Engine) findOrphan(ctx context.Context, dir string) *orphan {
	b := &berth{}
	hello, err := b.greet(dir)
	_ = b.closeFiles()
	if err != nil {
		return nil // without a task, or it has ended
	}
	o := &orphan{dir: dir, run: task.RunID{Task: task.ID(hello.Run.Task), Run: hello.Run.Run}}
	if e.orphans[o.run] != nil {
		return nil // a worker has one sandbox for a run
	}
	e.log.InfoContext(ctx, "task of an earlier worker found", slog.String("run", o.run.String()))
	return o
}

// greet connects to a supervisor that has a task.
func (b *berth) greet(dir string) (*supervisor.Hello, error) {
	state, err := os.Open(dir) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, err
	}
	defer func() { _ = state.Close() }()
	if err := b.connect(state); err != nil {
		return nil, err
	}
	event, err := b.next(helloPatience)
	if event.Hello != nil && event.Hello.Protocol != supervisor.Protocol && errors.As(err, new(*json.UnmarshalTypeError)) {
		err = nil // in other versions, what does not say the version may have another form
	}
	if err == nil && event.Hello == nil {
		err = errors.New("supervisor does not say what it is for")
	}
	return event.Hello, err
}

// Orphans implements engine.Reattacher.
func (e *Engine) Orphans(context.Context) ([]task.RunID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.orphans)), nil
}

// takeOrphan removes the orphan of a run from the engine's.
func (e *Engine) takeOrphan(run task.RunID) *orphan {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.orphans[run]
	delete(e.orphans, run)
	return o
}

// occupy notes that a berth has a task.
func (e *Engine) occupy(b *berth) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.occupied == nil {
		e.occupied = map[*berth]struct{}{}
	}
	e.occupied[b] = struct{}{}
}

// Reattach implements engine.Reattacher.
func (e *Engine) Reattach(_ context.Context, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
	found := e.takeOrphan(o.Run)
	if found == nil {
		return nil, &fs.PathError{Op: "reattach", Path: o.Run.String(), Err: fs.ErrNotExist}
	}
	b, hello, err := e.board(found)
	if err != nil {
		e.mu.Lock()
		e.orphans[o.Run] = found
		e.mu.Unlock()
		return nil, fmt.Errorf("reattach to the sandbox of %s: %w", o.Run, err)
	}
	e.occupy(b)
	// A supervisor that has ended is noticed where events are read.
	_ = b.request(supervisor.Request{Logged: &hello.Forgotten})
	s := &sandbox{
		e: e, berth: b, groups: hello.Groups, log: o.Log, commands: hello.Commands, from: from, forgotten: hello.Forgotten, told: hello.Forgotten,
		started: time.Now().Add(-hello.Elapsed), ended: make(chan struct{}),
	}
	e.background.Go(s.follow)
	return s, nil
}

// board returns the berth of an orphan.
func (e *Engine) board(o *orphan) (_ *berth, _ *supervisor.Hello, err error) {
	b := &berth{id: filepath.Base(o.dir), dir: o.dir, exited: make(chan struct{})}
	pidfd, pid, err := recordedProcess(filepath.Join(o.dir, processName))
	if err != nil {
		return nil, nil, err
	}
	if pidfd == nil {
		return nil, nil, errors.New("its supervisor has ended")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.closeFiles(), pidfd.Close())
		}
	}()
	hello, err := b.greet(o.dir)
	if err != nil {
		return nil, nil, err
	}
	if hello.Protocol != supervisor.Protocol || hello.Setup == nil {
		return nil, nil, fmt.Errorf("its supervisor has version %d of the protocol, and this worker has %d",
			hello.Protocol, supervisor.Protocol)
	}
	b.workDir, b.isolated = hello.Setup.WorkDir, hello.Setup.Isolated
	b.account = e.users.current
	if hello.Setup.Switch == (b.account != nil) {
		return nil, nil, errors.New("it belongs to a worker with other rights")
	}
	if b.account == nil {
		b.account = &account{name: hello.Setup.User, uid: hello.Setup.UID, gid: hello.Setup.GID}
	}
	if b.output, err = os.Open(filepath.Join(o.dir, outputName)); err != nil {
		return nil, nil, err
	}
	if b.process, err = os.FindProcess(pid); err != nil {
		return nil, nil, err
	}
	if err := b.openView(); err != nil {
		return nil, nil, err
	}
	// Only now is it sure that all of this was of the process that was recorded.
	if ended, err := awaitProcess(pidfd, 0); ended || err != nil {
		return nil, nil, errors.Join(errors.New("its supervisor has ended"), err)
	}
	if e.cgroups != nil && (hello.Setup.Group || hello.Setup.Threads > 0) {
		b.group = e.cgroups.Group(b.id)
	}
	go func() {
		_, _ = awaitProcess(pidfd, -1) // it fails for no descriptor but a wrong one
		// It is a child where this program has taken the place of the one that
		// started it, and would stay as a zombie.
		_ = unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, unix.WEXITED|unix.WNOHANG, nil)
		_ = pidfd.Close()
		close(b.exited)
	}()
	return b, hello, nil
}

// Discard implements engine.Reattacher. Files are removed in the background.
func (e *Engine) Discard(ctx context.Context, run task.RunID) error {
	o := e.takeOrphan(run)
	if o == nil {
		return nil
	}
	var vacated <-chan struct{}
	if b, _, err := e.board(o); err == nil {
		vacated = e.discard(b)
	} else {
		e.log.WarnContext(ctx, "task of an earlier worker cannot be reattached, it is killed",
			slog.String("run", run.String()), slog.Any("error", err))
		vacated = e.clear(o)
	}
	select {
	case <-vacated:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clear kills and removes an orphan that cannot be reattached.
func (e *Engine) clear(o *orphan) (vacated <-chan struct{}) {
	done := make(chan struct{})
	e.background.Go(func() {
		ctx := context.WithoutCancel(e.ctx)
		err := killRecorded(filepath.Join(o.dir, processName))
		if e.cgroups != nil {
			err = errors.Join(err, e.cgroups.Group(filepath.Base(o.dir)).Remove(ctx))
		}
		close(done)
		if err != nil {
			e.log.ErrorContext(ctx, "sandbox not disposed of properly", slog.Any("error", err))
		}
		e.removeDir(ctx, o.dir)
		<-e.slots
	})
	return done
}
