package taskcluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/poll"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Termination announces that worker-manager wants the worker to go, such as when
// the pool has more workers than it should. Running tasks may finish.
type Termination struct {
	manager *WorkerManager
	every   time.Duration
	log     *slog.Logger
	over    atomic.Bool // nothing is to be expected any more
}

var _ interrupt.Source = (*Termination)(nil)

// NewTermination returns a source that asks so often, or every minute if that is
// zero, while somebody waits.
func NewTermination(c *Client, every time.Duration, log *slog.Logger) *Termination {
	return &Termination{manager: NewWorkerManager(c), every: cmp.Or(every, time.Minute), log: log}
}

// Wait implements interrupt.Source.
func (t *Termination) Wait(ctx context.Context) (interrupt.Notice, error) {
	var notice interrupt.Notice
	err := poll.Until(ctx, t.every, func(ctx context.Context) bool {
		if t.over.Load() {
			return false
		}
		terminate, reason, err := t.manager.ShouldTerminate(ctx)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			t.log.DebugContext(ctx, "worker-manager does not know whether the worker should terminate", slog.Any("error", err))
			t.over.Store(true)
		case refused(err):
			t.log.WarnContext(ctx, "worker-manager does not say whether the worker should terminate, and is not asked again", slog.Any("error", err))
			t.over.Store(true)
		case err != nil && ctx.Err() == nil:
			t.log.WarnContext(ctx, "ask whether the worker should terminate", slog.Any("error", err))
		case err == nil && terminate:
			notice.Cause = "worker-manager: " + cmp.Or(reason, "the worker should terminate")
			t.over.Store(true)
			return true
		}
		return false
	})
	return notice, err
}

// refused reports whether the worker lacks what a call needs.
func refused(err error) bool {
	_, ok := errors.AsType[*CredentialsError](err)
	return ok
}
