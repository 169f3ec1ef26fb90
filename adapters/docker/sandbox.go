package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// sandbox is a task in execution: a container with its transcript, its network
// and its image.
type sandbox struct {
	e          *Engine
	log        *tasklog.Log
	transcript *transcript.File
	place      place
	spoils     bool   // the task may leave its place changed
	id         string // of the container; empty until it is created
	workDir    string // absolute
	image      engine.Image
	devices    []string // names
	release    func()   // frees image and devices
	meter      meter
	proxies    *proxies
	began      time.Time
	ended      chan struct{} // closed when result and err are set

	// ctx ends when the sandbox is aborted, or detached.
	ctx    context.Context
	cancel context.CancelFunc

	result *resultSet
	err    error

	mu       sync.Mutex
	killed   bool
	stopped  bool // the task was told to stop
	yielded  bool // the container is the result set's
	aborted  bool
	released <-chan struct{} // closed when an aborted sandbox is gone
}

var _ engine.Sandbox = (*sandbox)(nil)

func newSandbox(e *Engine, log *tasklog.Log) *sandbox {
	s := &sandbox{e: e, log: log, release: func() {}, ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(e.ctx)
	return s
}

// follow sees the task through to its end, with its output from a position on.
func (s *sandbox) follow(from tasklog.Position) {
	defer close(s.ended)
	defer s.closeTranscript()
	ended := make(chan struct{})
	t, err := s.transcribe(from, ended)
	if err != nil {
		s.err = err
		return
	}
	state, err := s.awaitEnd()
	close(ended)
	<-t.finished
	if s.e.detached.Load() {
		s.proxies.close()
	}
	// Of a sandbox that is left to the next process, part of the output may
	// not be in the log yet, after which the end is to be told.
	if err = errors.Join(err, s.ctx.Err()); err == nil {
		err = s.conclude(state, t)
	}
	s.err = err
}

func (s *sandbox) inspect() (container.State, error) {
	ctx, cancel := context.WithTimeout(s.ctx, callTime)
	defer cancel()
	r, err := s.e.daemon.ContainerInspect(ctx, s.id, client.ContainerInspectOptions{})
	if err != nil {
		return container.State{}, fmt.Errorf("inspect container: %w", err)
	}
	if r.Container.State == nil {
		return container.State{}, errors.New("inspect container: it has no state")
	}
	return *r.Container.State, nil
}

// killedExit is the exit code of what SIGKILL has ended.
const killedExit = 128 + 9

// conclude makes the result of a task whose container has ended, and whose
// output is in the log.
func (s *sandbox) conclude(state container.State, t *transcriber) error {
	s.mu.Lock()
	killed, stopped, aborted := s.killed, s.stopped, s.aborted
	s.mu.Unlock()
	done, err := s.transcript.Done()
	err = errors.Join(t.err, err)
	spoiled := errors.Is(err, transcript.ErrDamaged)
	if !spoiled { // by an earlier worker
		killed, stopped = killed || s.transcript.Killed(), stopped || s.transcript.Stopped()
	}
	switch {
	case spoiled:
		s.e.log.InfoContext(s.ctx, "a task has spoiled its transcript", slog.String("container", s.id), slog.Any("error", err))
		done = s.cutOff(container.State{ExitCode: -1})
		done.Signaled = killed
	case err != nil:
		return fmt.Errorf("read what the task has left: %w", err)
	}
	signaled := killed || stopped
	killed = killed && (done == nil || done.Signaled) // it may have ended before
	if state.ExitCode == killedExit && !state.OOMKilled && !signaled && s.e.config.Limits.MemoryBytes > 0 {
		state.OOMKilled = s.oomKilled()
	}
	switch {
	case done != nil && (signaled || !done.Signaled):
	case done == nil && (signaled || state.OOMKilled):
		done = s.cutOff(state)
		killed = killed || !state.OOMKilled
	default:
		return shutdown(nil, "the task's container was ended from outside: the Docker daemon was stopped, say")
	}
	used := s.meter.read(done.Total)
	if len(s.transcript.Spec.Commands) == 1 {
		done.Last.User, done.Last.Kernel, done.Last.MaxRSS = used.User, used.Kernel, used.PeakMemory
	}
	r := engine.Result{
		Success: done.Last.ExitCode == 0 && !killed && !done.Stopped, ExitCode: done.Last.ExitCode,
		Killed: killed, Interrupted: stopped,
		User: used.User, Kernel: used.Kernel, Wall: max(done.Total.Wall, 1), PeakMemory: used.PeakMemory,
	}
	r.OOM = state.OOMKilled && !r.Killed && !r.Success
	if r.ExitCode == killedExit && (r.Killed || r.OOM) {
		r.ExitCode, r.Signal = -1, "killed"
	}
	t.tellEnd(func(l *tasklog.Log) {
		if spoiled {
			l.Errorf("The task has written to %s, which is the worker's: the rest of its output and its exit code are not known", transcriptFile)
		}
		s.tellEnd(l, done, r, state.OOMKilled, aborted)
	})
	s.settle(r)
	return nil
}

// cutOff returns how a task ended that was killed.
func (s *sandbox) cutOff(state container.State) *transcript.Done {
	x := transcript.Executed{ExitCode: state.ExitCode, Wall: time.Since(s.began)}
	return &transcript.Done{Last: x, Total: x}
}

// tellEnd writes lines about the last command.
func (s *sandbox) tellEnd(l *tasklog.Log, done *transcript.Done, r engine.Result, oom, aborted bool) {
	last := done.Last
	if last.Failed != "" {
		l.Errorf("Command %d cannot be executed: %s", last.Index, last.Failed)
	}
	if oom {
		limit := "no limit of its own"
		if m := s.e.config.Limits.MemoryBytes; m > 0 {
			limit = fmt.Sprintf("a limit of %d MiB", m>>20)
		}
		l.Errorf("The OOM killer ended processes of the task: the task has %s of memory", limit)
	}
	if done.Dropped > 0 {
		l.Errorf("%d bytes of output are missing: they could not be stored (%s)", done.Dropped, done.Cause)
	}
	o := tasklog.Outcome{
		ExitCode: r.ExitCode, Signal: r.Signal, User: last.User, Kernel: last.Kernel, Wall: last.Wall, PeakMemory: last.MaxRSS,
		Result: "FAILED",
	}
	switch {
	case aborted, r.Killed && !r.Success:
		o.Result = "ABORTED"
	case r.Success:
		o.Result = "SUCCEEDED"
	}
	l.Executed(o)
}

// settle hands what is left of the container to a result set. Its network is
// free from now on.
func (s *sandbox) settle(r engine.Result) {
	s.proxies.close()
	s.e.networks.release(s.place, s.spoils)
	s.place = place{}
	s.result = &resultSet{
		result: r,
		dir:    strings.TrimPrefix(s.workDir, "/"),
		image:  s.image,
		files:  newFiles(s.e, s.id),
		close:  sync.OnceFunc(s.dispose),
	}
	if s.result.dir == "" {
		s.result.dir = "."
	}
}

// dispose removes the container in the background.
func (s *sandbox) dispose() {
	if s.e.detached.Load() {
		return
	}
	gone := s.e.trash.container(s.id)
	s.e.trash.containers.Go(func() {
		<-gone
		s.meter.close()
		s.removeTranscript()
		s.release()
	})
}

// discard releases everything, and returns a channel that is closed when it is
// gone.
func (s *sandbox) discard() <-chan struct{} {
	s.cancel()
	s.proxies.close()
	s.closeTranscript()
	done := make(chan struct{})
	none := make(chan struct{})
	close(none)
	var gone <-chan struct{} = none
	if s.id != "" {
		gone = s.e.trash.container(s.id)
	}
	s.e.trash.containers.Go(func() {
		defer close(done)
		<-gone
		s.meter.close()
		s.removeTranscript()
		s.e.networks.release(s.place, s.spoils)
		s.release()
	})
	return done
}

func (s *sandbox) closeTranscript() {
	if s.transcript != nil {
		_ = s.transcript.Close() // everything that matters is written
	}
}

// removeTranscript removes the transcript, which the container needs for as long
// as it is there.
func (s *sandbox) removeTranscript() {
	if s.transcript == nil || s.e.detached.Load() {
		return
	}
	if err := s.transcript.Remove(); err != nil {
		s.e.log.Warn("remove transcript", slog.Any("error", err))
	}
}

// Wait implements engine.Sandbox.
func (s *sandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	select {
	case <-s.ended:
	default:
		select {
		case <-s.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.e.detached.Load() {
		return nil, engine.ErrDetached
	}
	if s.aborted {
		return nil, engine.ErrAborted
	}
	if s.err != nil {
		return nil, s.err
	}
	s.yielded = true
	return s.result, nil
}

// Kill implements engine.Sandbox.
func (s *sandbox) Kill(context.Context) error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted || s.yielded || s.killed || s.e.detached.Load() {
		return nil
	}
	s.killed = true
	s.e.background.Go(s.kill)
	return nil
}

// kill ends the container's processes, however long the daemon keeps it from
// that.
func (s *sandbox) kill() {
	if grace := s.e.config.Grace; grace > 0 && !s.stopping() {
		s.signal(s.ctx, "TERM", s.transcript.Kill)
		select {
		case <-s.ended:
			return
		case <-s.ctx.Done():
			return
		case <-time.After(grace):
		}
	}
	for !s.signal(s.ctx, "KILL", s.transcript.Kill) {
		select {
		case <-s.ended:
			return
		case <-s.ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// signal reports whether a signal has reached the first process of the container,
// which passes it on to the command, or there is nothing to reach. What it is for
// is noted before, for the next worker.
func (s *sandbox) signal(ctx context.Context, name string, note func() error) bool {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := note(); err != nil { // a disk that is full keeps no task from its end
		s.e.log.WarnContext(ctx, "note that container is signaled", slog.String("container", s.id), slog.Any("error", err))
	}
	_, err := s.e.daemon.ContainerKill(ctx, s.id, client.ContainerKillOptions{Signal: name})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		s.e.log.WarnContext(ctx, "signal container", slog.String("container", s.id), slog.Any("error", err))
		return false
	}
	return true
}

// Abort implements engine.Sandbox.
func (s *sandbox) Abort(ctx context.Context) error {
	s.mu.Lock()
	if s.yielded || s.e.detached.Load() {
		s.mu.Unlock()
		return nil
	}
	if !s.aborted {
		s.aborted = true
		released := make(chan struct{})
		s.released = released
		s.cancel()
		s.e.trash.containers.Go(func() {
			defer close(released)
			removed := s.e.trash.container(s.id) // ends what follow waits for
			<-s.ended
			<-removed
			<-s.discard()
		})
	}
	released := s.released
	s.mu.Unlock()
	select {
	case <-released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// resultSet is what a container has left.
type resultSet struct {
	result engine.Result
	dir    string
	image  engine.Image
	files  *files
	close  func()
}

// Close implements engine.ResultSet.
func (r *resultSet) Close() error {
	r.close()
	return nil
}

// Result implements engine.ResultSet.
func (r *resultSet) Result() engine.Result { return r.result }

// Dir implements engine.ResultSet.
func (r *resultSet) Dir() string { return r.dir }

// Image implements engine.Imaged.
func (r *resultSet) Image() engine.Image { return r.image }

// absolute returns a path in the container.
func absolute(name string) string { return path.Join("/", name) }
