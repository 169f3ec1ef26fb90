package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Positions are twice the offset in the transcript, and one more once the end of
// the task is in the log, which is told after all of the transcript.
const endTold = 1

// transcriber copies a transcript into the log of a task.
type transcriber struct {
	e        *Engine
	log      *tasklog.Log
	file     *transcript.File
	reader   *transcript.Reader
	endTold  bool
	changed  <-chan struct{}
	stop     func()
	finished chan struct{} // closed when all is in the log
	err      error         // of reading; set before finished is closed
}

// transcribe copies what follows a position in the background, until the
// container has ended.
func (s *sandbox) transcribe(from tasklog.Position, ended <-chan struct{}) (*transcriber, error) {
	changed, stop, err := s.e.watcher.watch(s.transcript.Path())
	if err != nil {
		return nil, err
	}
	t := &transcriber{
		e: s.e, log: s.log, file: s.transcript, endTold: from&endTold != 0,
		changed: changed, stop: stop, finished: make(chan struct{}),
	}
	reader, lost := s.transcript.ReadFrom(int64(from) / 2)
	t.reader = reader
	if lost > 0 {
		t.log.Reach(t.position(), func(l *tasklog.Log) {
			l.Warnf("the log of an earlier worker is lost, with about %d bytes of output", lost)
		})
	}
	s.e.background.Go(func() { t.run(s.ctx, ended) })
	return t, nil
}

func (t *transcriber) position() tasklog.Position { return tasklog.Position(2 * t.reader.At()) }

// run copies frames as they come. All of them are there when the container has
// ended.
func (t *transcriber) run(ctx context.Context, ended <-chan struct{}) {
	defer close(t.finished)
	defer t.stop()
	// Should a change not be told, it is seen with the next beat.
	const slowest = 10 * time.Second
	beat := time.NewTicker(min(max(t.file.Spec.Patience/16, time.Millisecond), slowest))
	defer beat.Stop()
	for last := false; ; {
		if t.err = t.copy(ctx, beat.C); t.err != nil || last || ctx.Err() != nil {
			return
		}
		select {
		case <-t.changed:
		case <-beat.C:
			t.beat(ctx)
		case <-ended:
			last = true
		case <-ctx.Done():
			return
		}
	}
}

// beat tells the first process that its worker is there.
func (t *transcriber) beat(ctx context.Context) {
	if err := t.file.Beat(); err != nil {
		t.e.log.WarnContext(ctx, "tell a task that its worker is there", slog.Any("error", err))
	}
}

// copy copies all frames that are there now, of which there may be more and more
// while it does.
func (t *transcriber) copy(ctx context.Context, beat <-chan time.Time) error {
	for ctx.Err() == nil {
		select {
		case <-beat:
			t.beat(ctx)
		default:
		}
		t.forget(ctx) // be it what an earlier worker has read
		frame, err := t.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read output of the task: %w", err)
		}
		if frame.Event == nil {
			t.log.Output(frame.Output, t.position())
		} else {
			t.tell(*frame.Event)
		}
	}
	return nil
}

// forget frees what is in the log, which makes room in the backlog.
func (t *transcriber) forget(ctx context.Context) {
	if err := t.file.Forget(t.reader.At()); err != nil {
		t.e.log.WarnContext(ctx, "free output that is in the log", slog.Any("error", err))
	}
}

// tell writes lines about an event.
func (t *transcriber) tell(e transcript.Event) {
	commands := t.file.Spec.Commands
	t.log.Reach(t.position(), func(l *tasklog.Log) {
		if i := e.Executing; i != nil && *i >= 0 && *i < len(commands) {
			l.Executing(*i, commands[*i])
		}
		if x := e.Executed; x != nil {
			l.Executed(tasklog.Outcome{
				ExitCode: x.ExitCode, User: x.User, Kernel: x.Kernel, Wall: x.Wall, PeakMemory: x.MaxRSS, Result: "SUCCEEDED",
			})
		}
	})
}

// tellEnd writes lines about the end of the task, once.
func (t *transcriber) tellEnd(lines func(*tasklog.Log)) {
	if !t.endTold {
		t.endTold = true
		t.log.Reach(t.position()|endTold, lines)
	}
}
