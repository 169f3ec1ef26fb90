package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// drain is how far the worker is in stopping. Its contexts end one after the
// other, as notices ask for it:
//
//	claiming ends with the first notice;
//	working  ends, with a fault as its cause, with the first that has a deadline;
//	saving   ends when the earliest deadline has passed.
type drain struct {
	claiming, working, saving context.Context

	stopClaiming context.CancelFunc
	stopWorking  context.CancelCauseFunc
	stopSaving   context.CancelFunc
	log          *slog.Logger

	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
}

// Runs are not stopped by the contexts of the caller, which would end
// everything at once, but by the steps of the drain.
func newDrain(log *slog.Logger) *drain {
	d := &drain{log: log}
	d.saving, d.stopSaving = context.WithCancel(context.Background())
	d.working, d.stopWorking = context.WithCancelCause(d.saving)
	d.claiming, d.stopClaiming = context.WithCancel(d.working)
	return d
}

// listen acts on the notices of all sources, and on ctx as on a notice that
// leaves no time, until the returned function is called.
func (d *drain) listen(ctx context.Context, sources []interrupt.Source) (stop func()) {
	listening, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() {
			for {
				n, err := s.Wait(listening)
				if err != nil {
					return
				}
				d.notice(n)
			}
		})
	}
	unwatch := context.AfterFunc(ctx, func() {
		d.notice(interrupt.Notice{Cause: "the worker is being stopped", Deadline: time.Now()})
	})
	return func() {
		unwatch()
		cancel()
		wg.Wait()
	}
}

// notice takes the worker as far as n asks for. It never takes it back.
func (d *drain) notice(n interrupt.Notice) {
	d.log.InfoContext(d.saving, "interruption", slog.String("cause", n.Cause), slog.Time("deadline", n.Deadline))
	d.stopClaiming()
	if n.Deadline.IsZero() {
		return
	}
	d.stopWorking(fault.Shutdownf("worker shutdown: %s", n.Cause))

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !n.Deadline.Before(d.deadline) {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	// However late the notice, what is running gets time for its report.
	d.deadline = n.Deadline
	d.timer = time.AfterFunc(max(time.Until(n.Deadline), reportTime), d.stopSaving)
}

// reportTime is what a run that is stopped without any time left gets to tell
// the queue so.
const reportTime = 5 * time.Second

// close frees what the drain holds. Nothing may run any more.
func (d *drain) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.stopSaving()
	d.stopWorking(nil)
	d.stopClaiming()
}
