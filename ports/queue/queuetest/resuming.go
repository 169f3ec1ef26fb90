package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// takeAndResume adds a task, claims it, and resumes the claim.
func takeAndResume(ctx context.Context, tb testing.TB, h Harness) (original, resumed queue.Claim, err error) {
	tb.Helper()
	if original, err = takeOne(ctx, tb, h); err != nil {
		return nil, nil, err
	}
	if resumed, err = h.Queue(tb).Resume(queue.Save(original)); err != nil {
		return nil, nil, fmt.Errorf("Resume: %w", err)
	}
	return original, resumed, nil
}

func resumesWhatWasClaimed(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	original, resumed, err := takeAndResume(ctx, tb, h)
	if err != nil {
		return err
	}
	want, got := queue.Save(original), queue.Save(resumed)
	if got.Run != want.Run || !got.TakenUntil.Equal(want.TakenUntil) || got.Credentials != want.Credentials || !bytes.Equal(got.Definition, want.Definition) {
		return fmt.Errorf("resumed a claim on run %v until %v with %v, want run %v until %v with %v, and the same definition",
			got.Run, got.TakenUntil, got.Credentials, want.Run, want.TakenUntil, want.Credentials)
	}
	if diff := cmp.Diff(original.Task(), resumed.Task()); diff != "" {
		return fmt.Errorf("task (-claimed +resumed):\n%s", diff)
	}
	return nil
}

func resumedIsHeld(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	_, c, err := takeAndResume(ctx, tb, h)
	if err != nil {
		return err
	}
	before := c.TakenUntil()
	pause(ctx)
	if err := c.Check(ctx); err != nil {
		return fmt.Errorf("Check of a resumed claim: %w", err)
	}
	if err := c.Reclaim(ctx); err != nil {
		return fmt.Errorf("Reclaim of a resumed claim: %w", err)
	}
	if after := c.TakenUntil(); !after.After(before) {
		return fmt.Errorf("Reclaim left TakenUntil at %v, which was %v", after, before)
	}
	want := run.Resolution{Outcome: run.Failed}
	if err := c.Resolve(ctx, want); err != nil {
		return fmt.Errorf("Resolve of a resumed claim: %w", err)
	}
	if got := h.Resolution(tb, c.Run()); got != want {
		return fmt.Errorf("the run is resolved as %v, want %v", got, want)
	}
	return nil
}

func losesResumed(op Op) check {
	return func(ctx context.Context, tb testing.TB, h Harness) error {
		tb.Helper()
		original, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		left := queue.Save(original)
		h.Expire(tb, left.Run)
		c, err := h.Queue(tb).Resume(left)
		if err != nil {
			return fmt.Errorf("Resume of an expired claim: %w", err)
		}
		return wantLost(ctx, c, op)
	}
}

func resumesNoTask(_ context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	id := task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ"}
	if _, err := h.Queue(tb).Resume(queue.Saved{Run: id, Definition: []byte(`{`)}); err == nil {
		return errors.New("resumed a claim whose definition cannot be read")
	}
	return nil
}
