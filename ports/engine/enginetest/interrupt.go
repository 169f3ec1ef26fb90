package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// stop returns an interruption that stops a task.
func stop() engine.Interruption {
	return engine.Interruption{Cause: `a "test"`, Deadline: time.Now().Add(time.Minute), Stop: true}
}

// interrupt has a sandbox told of an interruption.
func interrupt(ctx context.Context, s engine.Sandbox, i engine.Interruption) error {
	told, ok := s.(engine.Interrupter)
	if !ok {
		return errors.New("the sandbox cannot tell its task of interruptions")
	}
	if err := told.Interrupt(ctx, i); err != nil {
		return fmt.Errorf("Interrupt: %w", err)
	}
	return nil
}

// says checks that a log has the interruption file, as i makes it.
func says(log string, i engine.Interruption) error {
	var got struct {
		Cause    string
		Deadline *time.Time
	}
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, `{"cause"`) {
			continue
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			return fmt.Errorf("the interruption file is not JSON: %w:\n%s", err, line)
		}
	}
	if got.Cause != i.Cause {
		return fmt.Errorf("the interruption file has the cause %q, want %q; the log is:\n%s", got.Cause, i.Cause, log)
	}
	if i.Deadline.IsZero() != (got.Deadline == nil) || got.Deadline != nil && i.Deadline.Sub(*got.Deadline).Abs() > time.Second {
		return fmt.Errorf("the interruption file has the deadline %v, want %v", got.Deadline, i.Deadline)
	}
	return nil
}

// tellsTaskToStop has a task write what it has and end in its own way.
func tellsTaskToStop(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts {
		return nil
	}
	b, log, err := build(ctx, tb, h, Step{Do: Heed}, Step{Do: Write, Path: "partial", Text: "half"}, Step{Do: Exit, N: 3})
	if err != nil {
		return err
	}
	if err := b.SetEnv(engine.InterruptionVariable, "/nowhere"); err != nil {
		return errors.Join(err, b.Close())
	}
	s, err := b.Start(ctx)
	if err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	i := stop()
	if err := errors.Join(log.await(ctx, "heeding"), interrupt(ctx, s, i)); err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if strings.Contains(log.String(), "heeding again") {
		return errors.New("the interruption file was there before the interruption")
	}
	if got := r.Result(); got.ExitCode != 3 || got.Killed || !got.Interrupted {
		return fmt.Errorf("a task that was told to stop and exits with 3 has the result %+v", got)
	}
	return errors.Join(says(log.String(), i), hasFile(r, "partial", "half"))
}

// announcesInterruption has a task go on that was told of an interruption.
func announcesInterruption(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts {
		return nil
	}
	s, log, err := start(ctx, tb, h, Step{Do: Await, Text: "first"}, Step{Do: Await, Text: "second"}, Step{Do: Heed})
	if err != nil {
		return err
	}
	first := engine.Interruption{Cause: "first"}
	second := engine.Interruption{Cause: "second", Deadline: time.Now().Add(time.Hour)}
	err = errors.Join(log.await(ctx, "awaiting"), interrupt(ctx, s, first), log.await(ctx, `"first"}`))
	if err == nil {
		err = errors.Join(says(log.String(), first), interrupt(ctx, s, second), log.await(ctx, `"second"`), log.await(ctx, "heeding again"))
	}
	if err == nil {
		err = errors.Join(says(log.String(), second), interrupt(ctx, s, stop()))
	}
	if err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if got := r.Result(); !got.Success || got.Killed || !got.Interrupted {
		return fmt.Errorf("a task that was told to stop and exits with 0 has the result %+v", got)
	}
	// The end of one that was only told is its own.
	s, log, err = start(ctx, tb, h, Step{Do: Await, Text: "first"})
	if err != nil {
		return err
	}
	if err := errors.Join(log.await(ctx, "awaiting"), interrupt(ctx, s, first)); err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	if r, err = finish(ctx, tb, s); err != nil {
		return err
	}
	if got := r.Result(); !got.Success || got.Interrupted {
		return fmt.Errorf("a task that was told of an interruption, but not to stop, has the result %+v", got)
	}
	return nil
}

func killsHeedless(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts {
		return nil
	}
	mark := mark(tb)
	s, log, err := start(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	if err := errors.Join(log.hanging(ctx), interrupt(ctx, s, stop()), interrupt(ctx, s, stop())); err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	if !h.Alive(tb, mark) {
		return errors.Join(errors.New("a task that does not heed an interruption was ended"), s.Abort(context.WithoutCancel(ctx)))
	}
	if err := s.Kill(ctx); err != nil {
		return fmt.Errorf("Kill: %w", err)
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if got := r.Result(); got.Success || !got.Killed || !got.Interrupted {
		return fmt.Errorf("a task that was told to stop, and killed, has the result %+v", got)
	}
	if h.Alive(tb, mark) {
		return errors.New("a process has survived the kill")
	}
	return nil
}

func executesNothingMore(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts {
		return nil
	}
	s, log, err := start(ctx, tb, h, Step{Do: Heed}, Step{Do: Missing})
	if err != nil {
		return err
	}
	if err := errors.Join(log.await(ctx, "heeding"), interrupt(ctx, s, stop())); err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if got := r.Result(); got.Success || got.ExitCode != 0 || !got.Interrupted {
		return fmt.Errorf("a task that was told to stop in its first command, which exits with 0, has the result %+v; its log is:\n%s", got, log)
	}
	return nil
}

func interruptAfterEnd(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts {
		return nil
	}
	s, _, err := start(ctx, tb, h, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if err := interrupt(ctx, s, stop()); err != nil {
		return err
	}
	again, err := s.Wait(ctx)
	if err != nil || again != r || !again.Result().Success || again.Result().Interrupted {
		return fmt.Errorf("after a late interruption, Wait returned %v, %q", again, fmt.Sprint(err))
	}
	return nil
}

func interruptsReattached(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Interrupts || !h.Abilities().Reattach {
		return nil
	}
	s, err := succeed(ctx, tb, h, Step{Do: Heed})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	left := s.sandbox
	if err := errors.Join(s.await(ctx, "heeding"), s.again(ctx, tb)); err != nil {
		return err
	}
	i := stop()
	if err := interrupt(ctx, left, engine.Interruption{Cause: "of nobody's concern", Stop: true}); err != nil {
		return fmt.Errorf("after Detach: %w", err)
	}
	if err := interrupt(ctx, s.sandbox, i); err != nil {
		return err
	}
	r, err := finish(ctx, tb, s.sandbox)
	if err != nil {
		return err
	}
	if got := r.Result(); got.Killed || !got.Interrupted {
		return fmt.Errorf("a task that was told to stop after reattachment has the result %+v", got)
	}
	return says(s.logs.Text(s.options.Run), i)
}
