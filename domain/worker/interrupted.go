package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// place notes that there is a sandbox.
func (r *runner) place(s engine.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandbox = s
	close(r.placed)
}

// yields reports whether the task is told to stop, and has some time left in which
// it may end in its own way, before it is killed.
func (r *runner) yields() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.sandbox.(engine.Interrupter)
	return ok && r.w.drain.working.Err() != nil && r.w.drain.yielding.Err() == nil
}

// keepToldTask tells the task of interruptions once it runs, and kills it where
// it does not end in time, until the returned function is called.
func (r *runner) keepToldTask(ctx context.Context) (stop func()) {
	// It goes on when the run has been reported.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-r.placed:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		task, ok := r.sandbox.(engine.Interrupter)
		r.mu.Unlock()
		if ok {
			r.tellTask(ctx, task)
		}
		r.awaitStop(ctx)
		if ctx.Err() == nil {
			r.killSandbox(ctx)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// tellTask tells a task of interruptions until it is to be killed, or ctx is
// done.
func (r *runner) tellTask(ctx context.Context, task engine.Interrupter) {
	if r.w.drain.yielding.Err() != nil {
		return // there is no time for it
	}
	yielding, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.w.drain.yielding, cancel)()
	var told engine.Interruption
	for {
		i, news := r.w.drain.toldNow()
		if i != told && r.w.drain.yielding.Err() == nil {
			if i.Stop && !told.Stop {
				r.awaitStop(yielding)
				r.taskLog.Infof("The task is told to stop, and has until %s to end", i.Deadline.UTC().Format(time.RFC3339))
			}
			err := contain(func() error { return task.Interrupt(yielding, i) })
			if err != nil && yielding.Err() == nil {
				r.log.WarnContext(ctx, "tell task of interruption", slog.Any("error", err))
			}
			told = i
		}
		select {
		case <-news:
		case <-yielding.Done():
			if told.Stop && ctx.Err() == nil {
				r.taskLog.Warnf("The task has not ended in time, and is killed")
			}
			return
		}
	}
}

// awaitStop waits until the run is stopped and the journal has that, lest the end
// of its task be taken for a verdict on the task, by this process or the next one,
// or until ctx is done.
func (r *runner) awaitStop(ctx context.Context) {
	select {
	case <-r.judged:
	case <-ctx.Done():
	}
}
