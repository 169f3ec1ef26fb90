package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// drain is how far the worker is in stopping. Its contexts end one after the
// other, as notices ask for it:
//
//	claiming  ends with the first notice;
//	working   ends, with a fault as its cause, where a deadline is near: runs
//	          are reported, and tasks told to stop;
//	yielding  ends when tasks that were told to stop are killed;
//	salvaging ends when the rest of the time is for the logs;
//	saving    ends when the earliest deadline has passed.
type drain struct {
	claiming, working, yielding, salvaging, saving context.Context

	stopClaiming, stopYielding, stopSalvaging, stopSaving context.CancelFunc
	stopWorking                                           context.CancelCauseFunc

	lead, grace time.Duration // those of Config
	log         *slog.Logger

	mu       sync.Mutex
	deadline time.Time     // the earliest one; zero if there is none
	timers   []*time.Timer // of the deadline
	told     engine.Interruption
	news     chan struct{} // closed when told has changed
}

// Runs are not stopped by the contexts of the caller, which would end
// everything at once, but by the steps of the drain.
func newDrain(lead, grace time.Duration, log *slog.Logger) *drain {
	d := &drain{lead: lead, grace: grace, log: log, news: make(chan struct{})}
	d.saving, d.stopSaving = context.WithCancel(context.Background())
	d.salvaging, d.stopSalvaging = context.WithCancel(d.saving)
	d.yielding, d.stopYielding = context.WithCancel(d.salvaging)
	d.working, d.stopWorking = context.WithCancelCause(d.yielding)
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
	attrs := []slog.Attr{slog.String("cause", n.Cause)}
	if !n.Deadline.IsZero() { // without one, running tasks may finish
		attrs = append(attrs, slog.Time("deadline", n.Deadline))
	}
	d.log.LogAttrs(d.saving, slog.LevelInfo, "interruption", attrs...)
	d.stopClaiming()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case n.Deadline.IsZero() && d.told.Cause == "":
		d.tell(engine.Interruption{Cause: n.Cause})
	case !n.Deadline.IsZero() && (d.deadline.IsZero() || n.Deadline.Before(d.deadline)):
		d.hurry(n)
	}
}

// hurry sets the steps of the drain by a deadline that is earlier than any
// before. The caller holds d.mu.
func (d *drain) hurry(n interrupt.Notice) {
	d.stopTimers()
	d.deadline = n.Deadline
	now := time.Now()
	p := planFor(now, n.Deadline, d.lead, d.grace)
	if d.told.Stop && d.told.Deadline.Before(p.kill) {
		p.kill = d.told.Deadline // tasks count on that
	}
	if !p.stop.After(now) {
		d.stop(n.Cause, p)
		return
	}
	d.tell(engine.Interruption{Cause: n.Cause, Deadline: p.kill})
	d.after(p.stop, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.deadline.Equal(n.Deadline) { // no earlier one has come meanwhile
			d.stopTimers()
			d.stop(n.Cause, p)
		}
	})
}

// stop has runs reported, and their tasks told, and takes what is left of the
// steps. The caller holds d.mu.
func (d *drain) stop(cause string, p plan) {
	d.stopWorking(fault.Shutdownf("worker shutdown: %s", cause))
	if p.kill.After(p.stop) {
		d.after(p.kill, d.stopYielding)
	} else {
		d.stopYielding()
	}
	d.after(p.log, d.stopSalvaging)
	d.after(p.end, d.stopSaving)
	d.tell(engine.Interruption{Cause: cause, Deadline: p.kill, Stop: true})
}

// after has f called at t, unless the timers are stopped. The caller holds d.mu.
func (d *drain) after(t time.Time, f func()) {
	d.timers = append(d.timers, time.AfterFunc(time.Until(t), f))
}

func (d *drain) stopTimers() {
	for _, t := range d.timers {
		t.Stop()
	}
	d.timers = nil
}

// tell makes i what tasks are to be told. The caller holds d.mu.
func (d *drain) tell(i engine.Interruption) {
	d.told = i
	close(d.news)
	d.news = make(chan struct{})
}

// toldNow returns what tasks are to be told, which has no cause if that is
// nothing, and a channel that is closed when this has changed.
func (d *drain) toldNow() (engine.Interruption, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.told, d.news
}

// close frees what the drain holds. Nothing may run any more.
func (d *drain) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopTimers()
	d.stopSaving()
	d.stopSalvaging()
	d.stopYielding()
	d.stopWorking(nil)
	d.stopClaiming()
}

// plan is how the time until a deadline is used.
type plan struct {
	stop time.Time // runs are reported, and tasks told to stop
	kill time.Time // tasks are killed that have not
	log  time.Time // nothing more is saved but logs
	end  time.Time // nothing more is saved
}

const (
	// reportTime is what a run that is stopped without any time left gets to
	// tell the queue so, and to store its log.
	reportTime = 5 * time.Second

	// logTime is what of the time for saving is the logs' alone.
	logTime = 10 * time.Second
)

// planFor returns the plan for a deadline: tasks go on until there is no more
// than lead left, or are stopped now, and get half of what is left then, but
// grace at most.
func planFor(now, deadline time.Time, lead, grace time.Duration) plan {
	var p plan
	p.stop = latest(now, deadline.Add(-lead))
	left := max(0, deadline.Sub(p.stop))
	p.kill = p.stop.Add(max(0, min(grace, left/2)))
	// However late the notice, what is running gets time for its report.
	p.end = latest(deadline, p.stop.Add(reportTime))
	p.log = p.end.Add(-logShare(p.end.Sub(p.stop)))
	return p
}

// logShare returns what of the time for saving is the logs' alone.
func logShare(d time.Duration) time.Duration { return min(logTime, d/4) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
