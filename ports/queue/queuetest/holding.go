package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

func holdsCredentials(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	for _, when := range []string{"claiming", "reclaiming"} {
		if got := c.Credentials(); got.ClientID == "" || got.AccessToken == "" {
			return fmt.Errorf("after %s, the claim has no credentials", when)
		}
		if err := c.Reclaim(ctx); err != nil {
			return err
		}
	}
	return nil
}

func reclaimingExtends(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	before := c.TakenUntil()
	if !before.After(time.Now()) {
		return fmt.Errorf("claimed until %v, which has passed", before)
	}
	// Times in a queue's answers have milliseconds.
	pause(ctx)
	if err := c.Reclaim(ctx); err != nil {
		return err
	}
	if after := c.TakenUntil(); !after.After(before) {
		return fmt.Errorf("Reclaim left TakenUntil at %v, which was %v", after, before)
	}
	return c.Check(ctx)
}

func checkingExtendsNothing(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	before := c.TakenUntil()
	pause(ctx)
	if err := c.Check(ctx); err != nil {
		return fmt.Errorf("Check of a claim that is held: %w", err)
	}
	if after := c.TakenUntil(); !after.Equal(before) {
		return fmt.Errorf("Check moved TakenUntil from %v to %v", before, after)
	}
	return nil
}

type check = func(context.Context, testing.TB, Harness) error

func losesCanceled(op Op) check {
	return func(ctx context.Context, tb testing.TB, h Harness) error {
		tb.Helper()
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		h.Cancel(tb, c.Run().Task)
		return wantLost(ctx, c, op)
	}
}

func losesExpired(op Op) check {
	return func(ctx context.Context, tb testing.TB, h Harness) error {
		tb.Helper()
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		h.Expire(tb, c.Run())
		return wantLost(ctx, c, op)
	}
}

func losesResolved(op Op) check {
	return func(ctx context.Context, tb testing.TB, h Harness) error {
		tb.Helper()
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		if err := c.Resolve(ctx, run.Resolution{Outcome: run.Completed}); err != nil {
			return err
		}
		return wantLost(ctx, c, op)
	}
}

func reportsEachResolution(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	for _, want := range allResolutions {
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		if err := c.Resolve(ctx, want); err != nil {
			return fmt.Errorf("Resolve(%v): %w", want, err)
		}
		if got := h.Resolution(tb, c.Run()); got != want {
			return fmt.Errorf("resolved as %v, want %v", got, want)
		}
	}
	return nil
}

func resolvesTwice(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	for _, r := range allResolutions {
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		for i := range 2 {
			if err := c.Resolve(ctx, r); err != nil {
				return fmt.Errorf("Resolve(%v), call %d: %w", r, i+1, err)
			}
		}
	}
	return nil
}

func firstResolutionStands(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	first := run.Resolution{Outcome: run.Failed}
	if err := c.Resolve(ctx, first); err != nil {
		return err
	}
	if err := wantLost(ctx, c, Resolve); err != nil {
		return err
	}
	if got := h.Resolution(tb, c.Run()); got != first {
		return fmt.Errorf("resolved as %v, want %v", got, first)
	}
	return nil
}

func refusesNoResolution(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	for _, o := range []run.Outcome{run.Undecided, run.Abandoned} {
		err := c.Resolve(ctx, run.Resolution{Outcome: o})
		if err == nil || errors.Is(err, queue.ErrClaimLost) {
			return fmt.Errorf("Resolve as %v returned %q, want an error about that", o, fmt.Sprint(err))
		}
	}
	return c.Check(ctx)
}

func retries(reason run.Reason) check {
	return func(ctx context.Context, tb testing.TB, h Harness) error {
		tb.Helper()
		c, err := takeOne(ctx, tb, h)
		if err != nil {
			return err
		}
		if err := c.Resolve(ctx, run.Resolution{Outcome: run.Exception, Reason: reason}); err != nil {
			return err
		}
		return wantNextRun(ctx, tb, h, c.Run())
	}
}

func expiryRetries(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	c, err := takeOne(ctx, tb, h)
	if err != nil {
		return err
	}
	h.Expire(tb, c.Run())
	return wantNextRun(ctx, tb, h, c.Run())
}

// wantNextRun returns an error unless the run after id can be claimed.
func wantNextRun(ctx context.Context, tb testing.TB, h Harness, id task.RunID) error {
	tb.Helper()
	next, err := h.Queue(tb).Claim(ctx, 2)
	if err != nil {
		return err
	}
	want := task.RunID{Task: id.Task, Run: id.Run + 1}
	if len(next) != 1 || next[0].Run() != want {
		return fmt.Errorf("granted %d claims after run %v was lost, want one on %v", len(next), id, want)
	}
	return next[0].Check(ctx)
}

func claimsAreIndependent(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	claims, err := take(ctx, tb, h, 3)
	if err != nil {
		return err
	}
	h.Cancel(tb, claims[0].Run().Task)
	if err := claims[1].Resolve(ctx, run.Resolution{Outcome: run.Completed}); err != nil {
		return err
	}
	for _, op := range []Op{Check, Reclaim, Resolve} {
		if err := perform(ctx, claims[2], op); err != nil {
			return fmt.Errorf("%s, after other claims ended: %w", op, err)
		}
	}
	return nil
}

func mayBeUsedConcurrently(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	const tasks, workers = 12, 4
	for range tasks {
		h.AddTask(tb, task.Definition{})
	}
	q := h.Queue(tb)
	var (
		mu   sync.Mutex
		seen = make(map[task.RunID]bool)
		errs error
		wg   sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for range tasks / workers {
				claims, err := q.Claim(ctx, 1)
				mu.Lock()
				errs = errors.Join(errs, err)
				for _, c := range claims {
					if seen[c.Run()] {
						errs = errors.Join(errs, fmt.Errorf("run %v was claimed twice", c.Run()))
					}
					seen[c.Run()] = true
				}
				mu.Unlock()
				for _, c := range claims {
					err := useConcurrently(ctx, c)
					mu.Lock()
					errs = errors.Join(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if errs == nil && len(seen) != tasks {
		errs = fmt.Errorf("claimed %d of %d tasks", len(seen), tasks)
	}
	return errs
}

func useConcurrently(ctx context.Context, c queue.Claim) error {
	uses := []func() error{
		func() error { return c.Reclaim(ctx) },
		func() error { return c.Reclaim(ctx) },
		func() error { return c.Check(ctx) },
		func() error { return nonzero(c.Credentials().ClientID, c.TakenUntil()) },
	}
	errs := make([]error, len(uses))
	var wg sync.WaitGroup
	for i, use := range uses {
		wg.Go(func() { errs[i] = use() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("concurrent use of run %v: %w", c.Run(), err)
	}
	return c.Resolve(ctx, run.Resolution{Outcome: run.Completed})
}

func nonzero(client string, until time.Time) error {
	if client == "" || until.IsZero() {
		return fmt.Errorf("claim of %q until %v", client, until)
	}
	return nil
}
