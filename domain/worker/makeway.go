package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// MakeWay has Run leave the sandboxes, and all that is in the journal, to the
// next process. Runs in which no sandbox goes on get some time to come to their
// end, or to their sandbox: the next process could only give them up, or do
// again what was nearly done. It may be called at any time, and again. A worker
// that drains does not make way any more, since nothing takes an interruption
// back, and one without a journal waits for its runs before it does.
func (w *Worker) MakeWay() { w.leave() }

// unwind is how long runs have to leave what they are at.
const unwind = 5 * time.Second

// makesWay leaves the sandboxes to the next process, if that is what the worker
// is to do.
func (w *Worker) makesWay() bool {
	if !w.mayMakeWay() || w.deps.Journal == nil {
		return false
	}
	timer := time.NewTimer(w.cfg.Handover)
	defer timer.Stop()
	for late := false; !late && !w.endures(); {
		select {
		case <-w.moved:
		case <-timer.C:
			late = true
		case <-w.drain.claiming.Done():
		}
		if !w.mayMakeWay() {
			return false
		}
	}
	// From here on, no run decides anything.
	w.left.Store(true)
	if e, ok := w.deps.Engine.(engine.Reattacher); ok {
		if err := contain(e.Detach); err != nil {
			w.deps.Log.Error("leave sandboxes to the next process", slog.Any("error", err))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), unwind)
	defer cancel()
	if !w.slots.waitIdle(ctx) {
		w.deps.Log.Warn("not all runs are left as they are meant to be")
	}
	return true
}

// mayMakeWay reports whether the worker is to make way, and does not drain.
func (w *Worker) mayMakeWay() bool {
	if w.stay.Err() == nil {
		return false
	}
	if w.drain.claiming.Err() != nil {
		w.deps.Log.Warn("the worker does not make way, since it is about to stop")
		return false
	}
	return true
}

// endures reports whether each run is one whose sandbox goes on by itself. One that
// was claimed just now may not be active yet.
func (w *Worker) endures() bool {
	enduring := 0
	w.active.Range(func(key, _ any) bool {
		if r, ok := key.(*runner); ok && r.reached.Load() == int64(run.Running) {
			enduring++
		}
		return true
	})
	return enduring == w.slots.count()
}

// tellMoved tells makesWay that a run has come to another state, or is gone.
func (w *Worker) tellMoved() {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}
