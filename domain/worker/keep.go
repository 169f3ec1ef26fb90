package worker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// keep reclaims c, each time at about two thirds of the lease it has, and at once
// if its lease is one that an earlier process has written down, until ctx is done
// or the claim is lost: because the queue says so, or because every attempt failed
// until the lease was over. It calls kept after each success, and returns nil or
// queue.ErrClaimLost.
func keep(ctx context.Context, c queue.Claim, resumed bool, kept func(), log *slog.Logger) error {
	for ; ; resumed = false {
		if !resumed {
			lease := time.Until(c.TakenUntil())
			wait(ctx, jitter(lease*2/3))
		}
		if err := reclaim(ctx, c, log); err != nil || ctx.Err() != nil {
			return err
		}
		kept()
	}
}

// reclaim tries to reclaim c until it succeeds, ctx is done, or the claim is
// lost. It tries at least once: where the clock was set, only the queue knows
// whether the lease is over.
func reclaim(ctx context.Context, c queue.Claim, log *slog.Logger) error {
	expiring, cancel := context.WithDeadline(ctx, c.TakenUntil())
	defer cancel()
	attempt := expiring
	if expiring.Err() != nil {
		attempt = ctx
	}
	for failures := 1; ; failures++ {
		if ctx.Err() != nil {
			return nil
		}
		if expiring.Err() != nil && failures > 1 {
			return queue.ErrClaimLost
		}
		err := c.Reclaim(attempt)
		if err == nil || errors.Is(err, queue.ErrClaimLost) {
			return err
		}
		if ctx.Err() == nil {
			log.WarnContext(ctx, "reclaim failed", slog.Any("error", err), slog.Time("takenUntil", c.TakenUntil()))
		}
		wait(expiring, backOff(failures, time.Second, 30*time.Second))
	}
}

// jitter returns d, or up to 5 % less, so that claims which were granted
// together are not reclaimed together.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - rand.N(d/20+1) //nolint:gosec // spreading load needs no secrecy
}

// maxChecks is how many checks for cancellation are under way at once.
const maxChecks = 8

// pollForCancellation asks the queue from time to time whether the runs are
// still this worker's, since the next reclaim may be many minutes away, until
// the returned function is called.
func (w *Worker) pollForCancellation() (stop func()) {
	ctx, cancel := context.WithCancel(w.drain.saving)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			wait(ctx, w.cfg.Poll)
			w.checkAll(ctx)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// checkAll checks every run once.
func (w *Worker) checkAll(ctx context.Context) {
	var wg sync.WaitGroup
	tokens := make(chan struct{}, maxChecks)
	w.active.Range(func(key, _ any) bool {
		r, ok := key.(*runner)
		if !ok || ctx.Err() != nil {
			return false
		}
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			r.check(ctx)
		})
		return true
	})
	wg.Wait()
}
