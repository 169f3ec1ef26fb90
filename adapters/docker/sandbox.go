package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// sandbox is a task in execution: a container, its network and its image.
type sandbox struct {
	e       *Engine
	b       *builder
	log     *tasklog.Log
	place   place
	id      string // of the container; empty until it is created
	proxies *proxies
	meter   *meter
	began   time.Time     // of the command that is executed
	ended   chan struct{} // closed when result and err are set

	// ctx ends when the sandbox is aborted.
	ctx    context.Context
	cancel context.CancelFunc

	stream   *output
	attached *client.HijackedResponse // nil in a container that rests

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

func newSandbox(b *builder) *sandbox {
	s := &sandbox{e: b.e, b: b, log: b.o.Log, meter: b.e.newMeter(b.o.Run), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(b.e.ctx)
	return s
}

// start creates the container and starts it. What it leaves when it fails,
// discard releases.
func (s *sandbox) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var err error
	if s.place, err = s.e.networks.acquire(ctx, s.b.egress, s.b.ownNetwork()); err != nil {
		return err
	}
	options := s.b.containerOptions(s.place.mode())
	options.HostConfig.CgroupParent = s.meter.parent
	if err := s.create(ctx, options); err != nil {
		return err
	}
	for _, at := range s.b.fresh {
		if err := s.openVolume(ctx, at); err != nil {
			return err
		}
	}
	if s.b.rests() {
		return s.startResting(ctx)
	}
	s.stream = newOutput(s.log, s.b.payload.TTY)
	attached, err := s.e.daemon.ContainerAttach(ctx, s.id, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach to container: %w", err)
	}
	s.attached = &attached.HijackedResponse
	s.log.Executing(0, s.b.commands()[0])
	s.began = time.Now()
	_, err = s.e.daemon.ContainerStart(ctx, s.id, client.ContainerStartOptions{})
	if errdefs.IsInvalidArgument(err) || err != nil && strings.Contains(err.Error(), "unable to find user") {
		// The daemon understands the container, but there is no such command,
		// or nobody to execute it.
		s.log.Errorf("Command 0 cannot be executed: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// create creates the container. It goes on when ctx is canceled, lest there be a
// container that nobody knows of.
func (s *sandbox) create(ctx context.Context, options client.ContainerCreateOptions) error {
	calling, cancel := s.e.call(ctx)
	defer cancel()
	created, err := s.e.daemon.ContainerCreate(calling, options)
	if noSpace(err) {
		// What another task has filled the disk with may be going away.
		s.e.trash.settle(ctx)
		created, err = s.e.daemon.ContainerCreate(calling, options)
	}
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	s.id = created.ID
	return ctx.Err()
}

func noSpace(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no space left on device")
}

// follow sees the task through to its end.
func (s *sandbox) follow() {
	defer close(s.ended)
	s.meter.follow(s.id)
	if s.b.rests() {
		s.err = s.executeAll()
		return
	}
	unlink := context.AfterFunc(s.ctx, s.attached.Close)
	defer unlink()
	lost := s.watch()
	err := s.stream.copy(s.attached.Reader)
	s.attached.Close()
	if err != nil && s.ctx.Err() == nil {
		s.e.log.WarnContext(s.ctx, "connection to a container's output was lost", slog.String("container", s.id), slog.Any("error", err))
	}
	state, err := s.outcome(<-lost, err != nil)
	if err != nil {
		s.err = err
		return
	}
	s.finish(state)
}

// watched is what became of waiting for a container.
type watched struct {
	lost time.Time // when the connection was lost; zero if the container has ended
	code int
}

// watch waits for the end of the container's process.
func (s *sandbox) watch() <-chan watched {
	end := make(chan watched, 1)
	wait := s.e.daemon.ContainerWait(s.ctx, s.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	s.e.background.Go(func() {
		select {
		case r := <-wait.Result:
			end <- watched{code: int(r.StatusCode)}
		case err := <-wait.Error:
			s.e.log.DebugContext(s.ctx, "wait for container", slog.String("container", s.id), slog.Any("error", err))
			end <- watched{lost: time.Now()}
		}
	})
	return end
}

// outcome returns how the container ended. Where the daemon was lost meanwhile,
// it waits for it to come back, and follows the container again.
func (s *sandbox) outcome(w watched, incomplete bool) (container.State, error) {
	if w.lost.IsZero() && !incomplete {
		if w.code == 0 {
			return container.State{}, nil
		}
		// Whether it ran out of memory is yet to be told.
		state, err := s.inspect()
		if err == nil {
			return state, nil
		}
		w.lost = time.Now()
	}
	return s.recover(w.lost)
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

// finish makes the result of a task with one command.
func (s *sandbox) finish(state container.State) {
	r := engine.Result{ExitCode: state.ExitCode, Wall: time.Since(s.began)}
	charge(&r, s.meter.read(), cgroup.Usage{})
	s.conclude(&r, state.OOMKilled)
	s.log.Executed(s.outcomeOf(r))
	s.settle(r)
}

// conclude completes a result by what the sandbox knows.
func (s *sandbox) conclude(r *engine.Result, oom bool) {
	s.mu.Lock()
	r.Killed, r.Interrupted = s.killed, s.stopped
	s.mu.Unlock()
	r.Success = r.ExitCode == 0 && !r.Killed
	if oom {
		limit := "no limit of its own"
		if m := s.e.config.Limits.MemoryBytes; m > 0 {
			limit = fmt.Sprintf("a limit of %d MiB", m>>20)
		}
		s.log.Errorf("The OOM killer ended processes of the task: the task has %s of memory", limit)
		r.OOM = !r.Killed && !r.Success
	}
	// The daemon reports the death by a signal as a shell does.
	if r.ExitCode == 128+9 && (r.Killed || r.OOM) {
		r.ExitCode, r.Signal = -1, "killed"
	}
}

func (s *sandbox) outcomeOf(r engine.Result) tasklog.Outcome {
	o := tasklog.Outcome{
		ExitCode: r.ExitCode, Signal: r.Signal, User: r.User, Kernel: r.Kernel, Wall: r.Wall, PeakMemory: r.PeakMemory,
		Result: "SUCCEEDED",
	}
	if !r.Success {
		o.Result = "FAILED"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		o.Result = "ABORTED"
	}
	return o
}

// settle hands what is left of the container to a result set. Its network is
// free from now on.
func (s *sandbox) settle(r engine.Result) {
	s.proxies.close()
	s.e.networks.release(s.place, s.b.ownNetwork())
	s.place = place{}
	s.result = &resultSet{
		result: r,
		dir:    strings.TrimPrefix(s.b.workDir(), "/"),
		image:  engine.Image{Hash: s.b.image.ID, ArchiveHash: s.b.image.ArchiveHash},
		files:  newFiles(s.e, s.id),
		close:  sync.OnceFunc(s.dispose),
	}
	if s.result.dir == "" {
		s.result.dir = "."
	}
}

// dispose removes the container in the background.
func (s *sandbox) dispose() {
	gone := s.e.trash.container(s.id)
	s.e.trash.containers.Go(func() {
		<-gone
		s.meter.close()
		s.b.release()
	})
}

// discard releases everything, and returns a channel that is closed when it is
// gone.
func (s *sandbox) discard() <-chan struct{} {
	s.cancel()
	s.proxies.close()
	if s.attached != nil {
		s.attached.Close()
	}
	done := make(chan struct{})
	gone := make(<-chan struct{})
	if s.id != "" {
		gone = s.e.trash.container(s.id)
	} else {
		none := make(chan struct{})
		close(none)
		gone = none
	}
	s.e.trash.containers.Go(func() {
		defer close(done)
		<-gone
		s.meter.close()
		s.e.networks.release(s.place, s.b.ownNetwork())
		s.b.release()
	})
	return done
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
	if s.aborted || s.yielded || s.killed {
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
		s.signal(s.ctx, "TERM")
		select {
		case <-s.ended:
			return
		case <-time.After(grace):
		}
	}
	for !s.signal(s.ctx, "KILL") {
		select {
		case <-s.ended:
			return
		case <-s.ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// signal reports whether a signal has reached the container, or there is nothing
// to reach.
func (s *sandbox) signal(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
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
	if s.yielded {
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

// argv returns a command with its entrypoint.
func (s *sandbox) argv(command []string) []string {
	return slices.Concat(s.b.entrypoint(), command)
}

// absolute returns a path in the container.
func absolute(name string) string { return path.Join("/", name) }
