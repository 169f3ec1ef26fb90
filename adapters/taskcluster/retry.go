package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Bounds on the waits between attempts.
const (
	firstWait     = 100 * time.Millisecond
	longestWait   = 20 * time.Second
	longestAsked  = time.Minute // for services that ask for a wait
	leastAttempts = 5
)

// forever has retry give up only when its context is done.
const forever time.Duration = 0

// retry calls attempt until it succeeds, fails for a reason that is not
// transient, or has been failing for patience. When ctx is done, the error is
// both that of ctx and that of the last attempt.
func (c *Client) retry(ctx context.Context, op string, patience time.Duration, attempt func() error) error {
	start := time.Now()
	for n := 1; ; n++ {
		err := attempt()
		if err == nil || !transient(err) {
			return err
		}
		if patience != forever && n >= leastAttempts && time.Since(start) >= patience {
			return fmt.Errorf("%w (%d attempts)", err, n)
		}
		wait := pause(n, err)
		c.log.WarnContext(ctx, "call failed and will be repeated",
			slog.String("call", op), slog.Int("attempt", n), slog.Duration("wait", wait), slog.Any("error", err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w, after %w", ctx.Err(), err)
		}
	}
}

// repeat makes the idempotent call r until it succeeds or patience ends.
func (c *Client) repeat(ctx context.Context, r call) error {
	return c.retry(ctx, r.op(), c.cfg.RetryFor, func() error { return c.do(ctx, r) })
}

// pause returns how long to wait after the n-th attempt in a row failed with
// err: a random time below a bound that doubles, so that workers that failed
// together do not come back together, but at least what the service asks.
func pause(n int, err error) time.Duration {
	bound := longestWait
	if n < 10 {
		bound = min(bound, firstWait<<n)
	}
	wait := rand.N(bound) //nolint:gosec // G404: spreads load, keeps no secret
	if e, ok := errors.AsType[*Error](err); ok {
		wait += min(e.retryAfter, longestAsked)
	}
	return wait
}
