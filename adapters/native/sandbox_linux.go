package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// sandbox is a task in execution.
type sandbox struct {
	e        *Engine
	berth    *berth
	groups   []uint32
	log      *tasklog.Log
	commands [][]string
	from     tasklog.Position // where the log was when this process attached
	started  time.Time
	ended    chan struct{} // closed when result and err are set

	result    *resultSet
	err       error
	forgotten int64 // bytes of output that were freed when this process attached
	copied    int64 // bytes of output that are in the log
	told      int64 // those that the supervisor knows of
	lines     int64 // events that are in the log
	buf       []byte

	// What tells a supervisor that does not answer from a log that is slow.
	listening atomic.Bool
	heard     atomic.Int64 // events

	mu       sync.Mutex
	yielded  bool // the berth is the result set's
	killed   bool
	forced   bool // the supervisor was killed, since it did not kill the task
	aborted  bool
	released <-chan struct{} // closed when an aborted task has ended
}

// follow writes the log, and ends with the task.
func (s *sandbox) follow() {
	defer close(s.ended)
	// Nothing may be left open when the engine is closed; what is ends then.
	defer context.AfterFunc(s.e.ctx, s.part)()
	for {
		var event supervisor.Event
		s.listening.Store(true)
		err := s.berth.events.Decode(&event)
		s.listening.Store(false)
		s.heard.Add(1)
		if err != nil {
			if s.wasForced() {
				s.err = s.finishForced()
				return
			}
			// A task without the powers of root cannot do that: another run may well succeed.
			s.err = &fault.Error{
				Kind: fault.Shutdown, Message: "the task's supervisor was ended from outside: the host ran out of memory, say", Err: err,
			}
			if s.e.leaving.Load() {
				s.err = engine.ErrDetached
			}
			return
		}
		if err := s.copyOutput(event.Size); err != nil {
			s.err = fmt.Errorf("native: read output: %w", err)
			return
		}
		switch {
		case event.Executing != nil:
			s.reach(func(l *tasklog.Log) { l.Executing(*event.Executing, s.commands[*event.Executing]) })
		case event.Executed != nil:
			s.reach(func(l *tasklog.Log) { s.logExecuted(l, event.Executed) })
		case event.Done != nil:
			s.finish(event.Done)
			return
		}
	}
}

// part ends what is left when the engine is closed.
func (s *sandbox) part() {
	if s.e.leaving.Load() {
		_ = s.berth.conn.SetReadDeadline(time.Unix(1, 0)) // fails if it is closed, which does as well
		return
	}
	s.berth.end()
}

// position returns how far this process has come. It counts bytes of output,
// and each event that lines are written about as one. As the supervisor tells
// every worker the same, it means the same to all of them.
func (s *sandbox) position() tasklog.Position { return tasklog.Position(s.copied + s.lines) }

// reach writes lines about an event to the log, unless it has them.
func (s *sandbox) reach(lines func(*tasklog.Log)) {
	s.lines++
	if at := s.position(); at > s.from {
		s.log.Reach(at, lines)
	}
}

// copyOutput brings the log up to the given size of the output.
func (s *sandbox) copyOutput(size int64) error {
	if logged := int64(s.from - s.position()); logged > 0 {
		s.copied = min(s.copied+logged, max(size, s.copied))
	}
	if lost := min(size, s.forgotten) - s.copied; lost > 0 {
		s.copied += lost
		s.log.Reach(s.position(), func(l *tasklog.Log) {
			l.Warnf("the log of an earlier worker is lost, with %d bytes of output", lost)
		})
	}
	if size > s.copied && s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	for s.copied < size {
		n, err := s.berth.output.ReadAt(s.buf[:min(int64(len(s.buf)), size-s.copied)], s.copied)
		if n == 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		s.copied += int64(n)
		s.log.Output(s.buf[:n], s.position())
		s.tellLogged()
	}
	s.tellLogged() // what an earlier worker has not
	return nil
}

// tellLogged tells the supervisor what is in the log, from time to time. The
// supervisor frees it, so that output takes the disk once and not twice, and
// knows the backlog.
func (s *sandbox) tellLogged() {
	if s.copied-s.told < forgetPiece {
		return
	}
	s.told = s.copied
	// A supervisor that has ended is noticed where events are read.
	_ = s.berth.request(supervisor.Request{Logged: &s.told})
}

// logExecuted writes what follows the output of a command.
func (s *sandbox) logExecuted(l *tasklog.Log, x *supervisor.Executed) {
	result := "SUCCEEDED"
	switch {
	case x.Killed || s.wasAborted():
		result = "ABORTED"
	case x.Failed != "" || x.ExitCode != 0:
		result = "FAILED"
	}
	if x.Failed != "" {
		l.Errorf("Command %d cannot be executed: %s", x.Index, x.Failed)
	}
	l.Executed(tasklog.Outcome{
		ExitCode:   x.ExitCode,
		Signal:     x.Signal,
		User:       x.User,
		Kernel:     x.Kernel,
		Wall:       x.Wall,
		PeakMemory: s.peak(x.MaxRSS),
		Result:     result,
	})
}

// peak returns the peak of memory so far, of all processes if that is known.
func (s *sandbox) peak(largest int64) int64 {
	if s.berth.group != nil {
		if u := s.berth.group.Usage(); u.PeakMemory > 0 {
			return u.PeakMemory
		}
	}
	return largest
}

// finish makes the result.
func (s *sandbox) finish(done *supervisor.Done) {
	r := engine.Result{ExitCode: -1, Killed: done.Killed, Interrupted: done.Stopped}
	succeeded := 0
	for _, x := range done.Commands {
		r.ExitCode, r.Signal = x.ExitCode, x.Signal
		r.User += x.User
		r.Kernel += x.Kernel
		r.Wall += x.Wall
		r.PeakMemory = max(r.PeakMemory, x.MaxRSS)
		if x.Failed == "" && x.ExitCode == 0 {
			succeeded++
		}
	}
	r.Success = succeeded == len(s.commands) && !done.Killed
	kills := 0
	if s.berth.group != nil {
		u := s.berth.group.Usage()
		if u.PeakMemory > 0 {
			r.PeakMemory = u.PeakMemory
		}
		kills = u.OOMKills
		r.OOM = kills > 0 && !r.Success && !r.Killed
	}
	s.reach(func(l *tasklog.Log) {
		s.logOOM(l, kills, r.Success)
		if done.Dropped > 0 {
			l.Errorf("%d bytes of output are missing here: they could not be stored (%s)", done.Dropped, done.Cause)
		}
	})
	s.result = newResultSet(s.e, s.berth, s.groups, r)
}

// logOOM says that the OOM killer has ended processes, if it has. A task that
// succeeded in spite of it has coped.
func (s *sandbox) logOOM(l *tasklog.Log, kills int, coped bool) {
	if kills == 0 {
		return
	}
	limit := "no limit of its own"
	if m := s.e.config.Limits.MemoryBytes; m > 0 {
		limit = fmt.Sprintf("a limit of %d MiB", m>>20)
	}
	say := l.Errorf
	if coped {
		say = l.Warnf
	}
	say("The OOM killer ended %d of the task's processes: the task has %s of memory", kills, limit)
}

// Started implements engine.Reattached.
func (s *sandbox) Started() time.Time { return s.started }

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
	if s.e.leaving.Load() {
		return nil, engine.ErrDetached
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
	if s.aborted || s.yielded || s.e.leaving.Load() {
		return nil
	}
	if s.killed {
		return nil
	}
	s.killed = true
	patience := s.e.config.Grace + s.e.killPatience
	if err := s.berth.request(supervisor.Request{Kill: &supervisor.Kill{Grace: s.e.config.Grace}}); err != nil {
		patience = time.Second
	}
	s.e.background.Go(func() {
		if s.awaitSilence(patience) {
			s.force()
		}
	})
	return nil
}

// awaitSilence waits until nothing was heard of the supervisor for so long, while
// it was listened to. It returns false where the sandbox has ended before.
func (s *sandbox) awaitSilence(patience time.Duration) bool {
	for {
		heard := s.heard.Load()
		select {
		case <-s.ended:
			return false
		case <-s.e.ctx.Done():
			return false
		case <-time.After(patience):
		}
		if s.listening.Load() && s.heard.Load() == heard {
			return true
		}
	}
}

// force kills a supervisor that does not do as it is told, which a task can keep
// it from: where its program is on a file system of its own, say, that does not
// let it begin.
func (s *sandbox) force() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ended:
		return
	default:
	}
	if s.aborted || s.e.leaving.Load() {
		return
	}
	s.forced = true
	_ = s.berth.process.Kill() // fails if it has ended
}

// finishForced makes the result of a task whose supervisor was killed, with all
// that it has printed.
func (s *sandbox) finishForced() error {
	select {
	case <-s.berth.exited: // and with it all processes of the task
	case <-s.e.ctx.Done():
		return errGoesOn
	}
	stat, err := s.berth.output.Stat()
	if err == nil {
		err = s.copyOutput(stat.Size())
	}
	if err != nil {
		return fmt.Errorf("native: read output: %w", err)
	}
	s.reach(func(l *tasklog.Log) { l.Errorf("The task's supervisor does not answer, and was killed with the task") })
	s.finish(&supervisor.Done{Killed: true})
	return nil
}

func (s *sandbox) wasForced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forced
}

// Abort implements engine.Sandbox.
func (s *sandbox) Abort(ctx context.Context) error {
	s.mu.Lock()
	if s.yielded || s.e.leaving.Load() {
		s.mu.Unlock()
		return nil
	}
	if !s.aborted {
		s.aborted = true
		released := make(chan struct{})
		s.released = released
		s.berth.end()
		s.e.background.Go(func() {
			<-s.ended // nobody uses the berth any more
			<-s.e.discard(s.berth)
			close(released)
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

func (s *sandbox) wasAborted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted
}

// relative returns an absolute path as a path in an fs.FS.
func relative(path string) string { return strings.TrimPrefix(path, "/") }
