package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// begin makes the runner of a run that was just claimed.
func (w *Worker) begin(c queue.Claim) *runner {
	r := newRunner(w, c)
	if w.deps.Journal != nil {
		r.entry = w.deps.Journal.Begin(journal.Saved{Saved: queue.Save(c)})
	}
	return r
}

// resumeAll goes on with every run that an earlier process has left, and removes
// what is left of any other. If it cannot know all of these runs it touches none.
//
// Errors: ErrUnresumed.
func (w *Worker) resumeAll(ctx context.Context) error {
	if w.deps.Journal == nil {
		if _, err := w.orphans(ctx, nil); err != nil {
			w.deps.Log.ErrorContext(ctx, "find sandboxes of an earlier process", slog.Any("error", err))
		}
		w.settleLater(ctx)
		return nil
	}
	saved, err := w.deps.Journal.Runs()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnresumed, err)
	}
	entries := make([]journal.Entry, len(saved))
	known := map[task.RunID]bool{}
	ids := make([]task.RunID, len(saved))
	for i, s := range saved {
		if entries[i], err = w.deps.Journal.Resume(s.Run); err != nil {
			return fmt.Errorf("%w: %w", ErrUnresumed, err)
		}
		known[s.Run] = true
		ids[i] = s.Run
	}
	orphans, err := w.orphans(ctx, known)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnresumed, err)
	}
	if err := w.deps.Logs.Keep(ids...); err != nil {
		w.deps.Log.WarnContext(ctx, "remove logs that were left", slog.Any("error", err))
	}
	for i, s := range saved {
		r, err := w.resume(s, entries[i], orphans[s.Run])
		if err != nil {
			w.deps.Log.ErrorContext(ctx, "a run of an earlier process is lost", slog.String("run", s.Run.String()), slog.Any("error", err))
			if orphans[s.Run] {
				w.discard(ctx, s.Run)
			}
			continue
		}
		w.slots.take()
		w.resuming.Add(1)
		r.resumed = sync.OnceFunc(w.resuming.Done)
		go func() {
			defer w.tellMoved()
			defer w.slots.release()
			w.process(r)
		}()
	}
	w.settleLater(ctx)
	return nil
}

// settleLater has the plugins be told once it is known which runs go on, and other
// sandboxes are gone.
func (w *Worker) settleLater(ctx context.Context) {
	w.settling.Go(func() {
		w.resuming.Wait()
		if !w.left.Load() { // the next process may yet resume what this one did not
			w.settle(ctx)
		}
	})
}

// settle tells the plugins that no more runs are resumed. What they do not come to
// give up, since the worker ends say, the next process has them give up.
func (w *Worker) settle(ctx context.Context) {
	ctx, cancel := until(ctx, w.drain.saving, w.cfg.Cleanup)
	defer cancel()
	for _, p := range w.deps.Plugins {
		if s, ok := p.(plugin.Settler); ok {
			if err := contain(func() error { return s.Settled(ctx) }); err != nil {
				w.deps.Log.ErrorContext(ctx, "settle", slog.String("plugin", p.Name()), slog.Any("error", err))
			}
		}
	}
}

// orphans returns the runs whose sandboxes are there, and discards those of runs
// that nobody knows.
func (w *Worker) orphans(ctx context.Context, known map[task.RunID]bool) (map[task.RunID]bool, error) {
	found := map[task.RunID]bool{}
	reattacher, ok := w.deps.Engine.(engine.Reattacher)
	if !ok {
		return found, nil
	}
	ids, err := reattacher.Orphans(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if known[id] {
			found[id] = true
		} else {
			w.discard(ctx, id)
		}
	}
	return found, nil
}

// discard removes the sandbox of a run that nobody goes on with. Nobody waits for
// that but the plugins: an engine may hang.
func (w *Worker) discard(ctx context.Context, id task.RunID) {
	w.resuming.Go(func() {
		ctx, cancel := until(ctx, w.drain.saving, w.cfg.Cleanup)
		defer cancel()
		w.discardNow(ctx, id)
	})
}

func (w *Worker) discardNow(ctx context.Context, id task.RunID) {
	err := contain(func() error { return w.deps.Engine.(engine.Reattacher).Discard(ctx, id) })
	if err != nil {
		w.deps.Log.ErrorContext(ctx, "remove sandbox of an earlier process", slog.String("run", id.String()), slog.Any("error", err))
	}
}

// resume makes the runner of a run that an earlier process has left.
func (w *Worker) resume(s journal.Saved, entry journal.Entry, orphan bool) (*runner, error) {
	c, err := w.deps.Queue.Resume(s.Saved)
	if err != nil {
		entry.Forget()
		return nil, fmt.Errorf("resume claim: %w", err)
	}
	r := newRunner(w, c)
	r.entry, r.saved, r.orphan = entry, &s, orphan
	return r, nil
}

// note adds a record to the journal.
func (r *runner) note(record journal.Record) {
	if r.entry != nil {
		r.entry.Add(record)
	}
}

// errNotResumed is what becomes of a run that an earlier process had claimed and
// that cannot go on.
var errNotResumed = fault.Shutdownf("the worker was started again before the task had ended, and cannot go on with it")

// errOver is what becomes of a run of which an earlier process has reported and
// stored all there was: what it had disposed of already must not be stored again.
var errOver = fmt.Errorf("the worker was started again when the run was over: %w", queue.ErrClaimLost)

// comeBack begins a run that an earlier process has left. Its log is the owner's
// before anything else happens, and is there to be removed if nothing does.
func (r *runner) comeBack(ctx context.Context) outcome {
	r.log.InfoContext(ctx, "run of an earlier process", slog.String("state", r.saved.State.String()), slog.Bool("sandbox", r.orphan))
	position, err := r.resumeLog()
	if r.saved.Resolution != nil && r.saved.State == run.Disposing {
		r.resumed()
		return outcome{err: errOver}
	}
	out := outcome{err: err}
	if err == nil {
		out = r.stage(ctx, func(ctx context.Context) (run.Event, error) { return r.takeOver(ctx, position) })
	}
	if r.pending == nil {
		r.resumed() // the stage may not have begun
	}
	if decided := r.saved.Resolution; decided != nil && out.err != nil {
		// That stands, whatever is in the way of the rest: the queue may have the
		// report already, and if not, nothing is left to do but that.
		r.log.WarnContext(ctx, "what the run has left is not saved", slog.Any("error", out.err))
		return outcome{event: run.Resumed{State: run.Reporting, Resolution: *decided}}
	}
	return out
}

// takeOver goes on where an earlier process was: with a report that was to be
// made, or a sandbox that is still there, from a position in its output on.
// Anything else the queue gives another run.
func (r *runner) takeOver(ctx context.Context, position tasklog.Position) (run.Event, error) {
	defer r.resumed()
	authorize := newAuthorizer(r.claim.Task().Scopes, r.w.deps.Auth)
	if decided := r.saved.Resolution; decided != nil {
		if r.orphan && decided.Outcome == run.Exception {
			// What the task has left is there to be salvaged, if it can be had.
			_ = r.rejoin(ctx, authorize, position)
			r.killSandbox(ctx)
		}
		if len(r.plugins) == 0 {
			r.addFinishers(authorize)
		}
		return run.Resumed{State: run.Reporting, Resolution: *decided}, nil
	}
	// A run that was being disposed of was abandoned, and its sandbox ended.
	if !r.orphan || r.saved.State == run.Disposing {
		r.addFinishers(authorize)
		return nil, errNotResumed
	}
	if err := r.rejoin(ctx, authorize, position); err != nil {
		return nil, err
	}
	return run.Resumed{State: run.Running}, nil
}

// rejoin makes the plugins' parts, and takes over the sandbox.
func (r *runner) rejoin(ctx context.Context, authorize auth.Authorize, position tasklog.Position) error {
	contents, err := r.w.readPayload(r.claim.Task(), r.taskLog)
	if err == nil {
		err = r.addPlugins(contents, authorize)
	}
	if err != nil {
		return err
	}
	if err := r.reattach(ctx, contents, authorize, position); err != nil {
		r.log.ErrorContext(ctx, "reattach sandbox", slog.Any("error", err))
		return errNotResumed
	}
	return nil
}

// resumeLog goes on with the task log, or starts another one, to which the engine
// yields what it still has of what the task has printed.
func (r *runner) resumeLog() (tasklog.Position, error) {
	recording, position, err := r.w.deps.Logs.Resume(r.claim.Run())
	if err != nil {
		r.log.WarnContext(r.held, "task log of an earlier process cannot be resumed, and begins anew", slog.Any("error", err))
		position = 0
		// Without a sandbox there is nothing that it could say, and a better one
		// may be stored already.
		r.bare = r.saved.Resolution != nil && !r.orphan
		recording, err = r.w.deps.Logs.Record(r.claim.Run())
	}
	if err != nil {
		return 0, fmt.Errorf("resume task log: %w", err)
	}
	r.recording, r.taskLog = recording, tasklog.New(recording)
	return position, nil
}

// reattach takes over the sandbox, and tells the plugins that want to know.
func (r *runner) reattach(ctx context.Context, c contents, authorize auth.Authorize, from tasklog.Position) error {
	var s engine.Reattached
	err := contain(func() (err error) {
		s, err = r.w.deps.Engine.(engine.Reattacher).Reattach(ctx, r.options(c, authorize), from)
		return err
	})
	if err != nil {
		return err
	}
	r.place(s)
	r.orphan = false
	for _, p := range r.plugins {
		if resumer, ok := p.part.(plugin.Resumer); ok {
			err := r.hook(ctx, p, "resumed", func(ctx context.Context) error { return resumer.Resumed(ctx, s, s.Started()) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// discardOrphan removes a sandbox of an earlier process that was not taken over.
func (r *runner) discardOrphan(ctx context.Context) {
	if r.orphan {
		r.w.discardNow(ctx, r.claim.Run())
	}
}
