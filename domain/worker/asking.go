package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// askTime is how long a report waits for a call for work that was canceled: more
// than adapters give the queue to answer it, and less than the second in which
// the report is due.
const askTime = 750 * time.Millisecond

// asking is the call for work that is in flight, if there is one. A worker that
// is being stopped would be granted, by that call, the runs that its own reports
// make, had it not ended before they are sent.
type asking struct {
	call atomic.Pointer[chan struct{}] // closed when the call is over; nil before the first one
}

// claim asks the queue for up to n runs.
func (w *Worker) claim(ctx context.Context, n int) ([]queue.Claim, error) {
	over := make(chan struct{})
	defer close(over)
	w.asking.call.Store(&over)
	// Whoever saw no call after ctx was done must not be wrong.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.deps.Queue.Claim(ctx, n)
}

// waitOver waits until no call is in flight, but not for long. It is for when
// claiming has ended.
func (a *asking) waitOver() {
	call := a.call.Load()
	if call == nil {
		return
	}
	timer := time.NewTimer(askTime)
	defer timer.Stop()
	select {
	case <-*call:
	case <-timer.C:
	}
}
