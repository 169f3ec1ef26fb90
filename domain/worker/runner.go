package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// errDeadline is the cause of a run stopped at its task's deadline. The queue
// resolves it by itself.
var errDeadline = fmt.Errorf("the task's deadline has passed: %w", queue.ErrClaimLost)

// runner sees one run through. Its stages run in goroutines of their own, one
// at a time, so that the owner can report a run that is stopped while a stage
// is still unwinding.
type runner struct {
	w     *Worker
	claim queue.Claim
	log   *slog.Logger

	// held is canceled with queue.ErrClaimLost when the claim is lost, and
	// work, its child, with whatever else stops the run.
	held, work     context.Context
	lose, stopWork context.CancelCauseFunc

	entry   journal.Entry  // nil without a journal
	saved   *journal.Saved // what an earlier process has left; nil for a new claim
	resumed func()         // is called once it is known whether the run goes on; nil for a new claim
	orphan  bool           // a sandbox of that process is there, and was not taken over

	run       run.Run
	reached   atomic.Int64 // the run's state, for others to see
	gone      bool         // the run is the next process's
	untold    bool         // its resolution is the next process's to report
	bare      bool         // an earlier process has left nothing to salvage
	started   time.Time
	entered   time.Time // when the run came into its state
	spent     map[run.State]time.Duration
	pending   chan outcome // of the stage that is still unwinding; nil if none is
	stuck     bool         // a stage did not end in time, and its hooks still run
	unguard   func()       // ends what may stop the run
	recording tasklog.Recording
	taskLog   *tasklog.Log // nil if it could not be started
	plugins   []*pluginPart

	untell func()        // ends telling the task of interruptions
	placed chan struct{} // closed when there is a sandbox
	judged chan struct{} // closed once the journal has what becomes of the run

	mu      sync.Mutex // guards what a stage acquires while the owner may need it
	builder engine.Builder
	sandbox engine.Sandbox
	results engine.ResultSet
}

// outcome is what a stage came to.
type outcome struct {
	event run.Event
	err   error
}

func newRunner(w *Worker, c queue.Claim) *runner {
	r := &runner{
		w:       w,
		claim:   c,
		log:     w.deps.Log.With(slog.String("taskId", string(c.Run().Task)), slog.Int("runId", c.Run().Run)),
		entered: time.Now(),
		spent:   map[run.State]time.Duration{},
		placed:  make(chan struct{}),
		judged:  make(chan struct{}),
	}
	r.held, r.lose = context.WithCancelCause(w.drain.saving)
	r.work, r.stopWork = context.WithCancelCause(r.held)
	return r
}

// live takes the run from its claim to its end.
func (r *runner) live() Report {
	r.started = time.Now()
	if r.saved != nil && !r.saved.Started.IsZero() && r.saved.Started.Before(r.started) {
		r.started = r.saved.Started
	}
	ctx, endSpan := r.w.deps.Telemetry.Span(r.held, "run",
		slog.String("taskId", string(r.claim.Run().Task)), slog.Int("runId", r.claim.Run().Run))
	r.unguard = sync.OnceFunc(r.guard(ctx))
	defer r.unguard()
	r.untell = sync.OnceFunc(r.keepToldTask(ctx))
	defer r.untell()

	r.log.InfoContext(ctx, "run claimed", slog.Time("takenUntil", r.claim.TakenUntil()))
	for r.run.State() != run.Done {
		if r.step(ctx); r.gone {
			r.log.InfoContext(ctx, "run is left to the next process", slog.String("state", r.run.State().String()))
			endSpan(nil)
			return Report{}
		}
	}

	res := r.run.Resolution()
	r.log.InfoContext(ctx, "run is over", slog.String("resolution", res.String()), slog.Duration("took", time.Since(r.started)))
	r.w.deps.Telemetry.Count(ctx, "tasks", 1, slog.String("outcome", res.Outcome.String()), slog.String("reason", string(res.Reason)))
	var spanErr error
	if res.Outcome >= run.Exception {
		spanErr = errors.New(res.String())
	}
	endSpan(spanErr)
	return Report{Run: r.claim.Run(), Resolution: res, Stages: r.spent}
}

// guard starts what may stop the run: loss of the claim, the task's deadline
// and the drain of the worker. It returns a function that ends it all.
func (r *runner) guard(ctx context.Context) (stop func()) {
	keeping, stopKeeping := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		kept := func() { r.note(journal.Leased{TakenUntil: r.claim.TakenUntil(), Credentials: r.claim.Credentials()}) }
		if err := keep(keeping, r.claim, r.saved != nil, kept, r.log); err != nil {
			r.lose(err)
		}
	})
	// The context of a span need not descend from held in other ways than by
	// its values, so the causes are passed on by hand.
	undrain := context.AfterFunc(r.w.drain.working, func() { r.stopWork(context.Cause(r.w.drain.working)) })
	undeadline := func() bool { return true }
	if deadline := r.claim.Task().Deadline; !deadline.IsZero() {
		undeadline = time.AfterFunc(time.Until(deadline), func() { r.lose(errDeadline) }).Stop
	}
	return func() {
		undrain()
		undeadline()
		stopKeeping()
		wg.Wait()
		r.lose(nil)
	}
}

// check asks the queue whether the claim still holds.
func (r *runner) check(ctx context.Context) {
	if err := r.claim.Check(ctx); errors.Is(err, queue.ErrClaimLost) {
		r.lose(err)
	}
}

// step takes the run through its present state into another one, unless it is
// the next process's before that.
func (r *runner) step(ctx context.Context) {
	if r.gone = r.w.left.Load(); r.gone {
		return
	}
	state := r.run.State()
	ctx, endSpan := r.w.deps.Telemetry.Span(ctx, "run."+state.String())
	var out outcome
	switch state {
	case run.Claimed:
		if r.saved != nil {
			out = r.comeBack(ctx)
		} else {
			out = r.begin()
		}
	case run.Preparing:
		out = r.stage(ctx, r.prepare)
	case run.Building:
		out = r.stage(ctx, r.build)
	case run.Running:
		out = r.stage(ctx, r.await)
	case run.Collecting:
		r.recording.Draft(true) // a process that goes on from here collects anew
		out = r.stage(ctx, r.collect)
	case run.Finishing:
		out = r.stage(ctx, r.finish(r.run.Resolution()))
	case run.Reporting:
		out.event = r.report(ctx)
		r.unguard() // the queue has done with the claim
	case run.Salvaging:
		r.salvage(ctx)
		out.event = run.Salvaged{}
	default:
		r.dispose(ctx)
		out.event = run.Disposed{}
	}
	// Whatever a stage says of a sandbox that was left is no decision.
	if r.gone = r.w.left.Load(); r.gone {
		endSpan(nil)
		return
	}
	if out.err != nil {
		out.event = r.fault(ctx, out.err)
	}
	endSpan(out.err)
	r.advance(ctx, out.event)
	if out.err != nil && r.run.State() == run.Reporting {
		r.endSandbox(ctx, out.err)
	}
}

// advance records what happened to the run.
func (r *runner) advance(ctx context.Context, e run.Event) {
	state := r.run.State()
	next, err := r.run.After(e)
	if err != nil {
		// A bug here must not keep the run, and its slot, for ever.
		r.log.ErrorContext(ctx, "illegal event", slog.Any("error", err))
		if next, err = r.run.After(run.ClaimLost{}); err != nil {
			next, _ = r.run.After(run.Disposed{})
		}
	}
	now := time.Now()
	r.spent[state] += now.Sub(r.entered)
	r.w.deps.Telemetry.Measure(ctx, "stage.seconds", now.Sub(r.entered).Seconds(), slog.String("stage", state.String()))
	r.run, r.entered = next, now
	r.reached.Store(int64(next.State()))
	r.w.tellMoved()
	switch next.State() {
	case run.Reporting:
		r.note(journal.Resolving{Resolution: next.Resolution()})
	case run.Done:
		if r.entry != nil && !r.untold {
			r.entry.Forget()
		}
	default:
		if !r.untold { // Disposing would say that there is nothing to report
			r.note(journal.Reached{State: next.State()})
		}
	}
	if state < run.Reporting && next.State() >= run.Reporting {
		close(r.judged)
	}
}

// stage runs one stage in a goroutine of its own and waits until it is over or
// the run is stopped, whichever comes first.
func (r *runner) stage(ctx context.Context, do func(context.Context) (run.Event, error)) outcome {
	if r.work.Err() != nil {
		return outcome{err: context.Cause(r.work)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(r.work, func() { cancel(context.Cause(r.work)) })
	done := make(chan outcome, 1)
	go func() {
		defer cancel(nil)
		defer unlink()
		var out outcome
		err := contain(func() (err error) {
			out.event, err = do(ctx)
			return err
		})
		done <- outcome{out.event, err}
	}()
	select {
	case out := <-done:
		if out.err != nil && r.work.Err() != nil {
			out.err = context.Cause(r.work) // what a hook says of being stopped is beside the point
		}
		return out
	case <-r.work.Done():
		r.pending = done
		return outcome{err: context.Cause(r.work)}
	}
}

// settle waits for a stage that was stopped to unwind, and reports whether
// nothing of it runs any more.
func (r *runner) settle(ctx context.Context) bool {
	if r.pending == nil {
		return !r.stuck
	}
	timer := time.NewTimer(r.w.cfg.Cleanup)
	defer timer.Stop()
	select {
	case <-r.pending:
	case <-timer.C:
		r.stuck = true
		r.log.ErrorContext(ctx, "a stage does not end; what it holds is lost", slog.String("state", r.run.State().String()))
		if r.resumed != nil {
			r.resumed() // it never will be
		}
	}
	r.pending = nil
	return !r.stuck
}

// fault turns an error into the event that it means, and tells both audiences.
func (r *runner) fault(ctx context.Context, err error) run.Event {
	if errors.Is(err, queue.ErrClaimLost) {
		r.log.InfoContext(ctx, "claim is lost", slog.Any("error", err))
		return run.ClaimLost{}
	}
	f := fault.Classify(err)
	state := r.run.State()
	if f.Kind == fault.Failure && (state == run.Preparing || state == run.Building) {
		r.tell(f.Message)
		return run.NotStarted{}
	}
	reason := f.Kind.Resolution().Reason
	if reason == "" || f.Kind == fault.Internal {
		reason = run.InternalError
		incident := newIncident()
		r.log.ErrorContext(ctx, "internal error", slog.String("incident", incident),
			slog.String("state", state.String()), slog.Any("error", err))
		r.tell("internal error of the worker, incident " + incident)
	} else {
		r.log.InfoContext(ctx, "run ends with an exception", slog.String("reason", string(reason)), slog.Any("error", err))
		r.tell(f.Message)
	}
	if state == run.Collecting {
		r.recording.Draft(false) // it says what has ended the run
	}
	return run.Faulted{Reason: reason}
}

// endSandbox sets about ending the sandbox of a run that an error has ended. The
// journal knows of that: the next process must not take the end for the task's own.
func (r *runner) endSandbox(ctx context.Context, err error) {
	if fault.Classify(err).Kind != fault.Shutdown || !r.yields() {
		r.killSandbox(ctx)
	}
}

// tell writes an error to the task log, if there is one.
func (r *runner) tell(message string) {
	if r.taskLog != nil {
		r.taskLog.Errorf("%s", message)
	}
}

// killSandbox ends the sandbox without waiting for its end, so that what it
// leaves can be salvaged.
func (r *runner) killSandbox(ctx context.Context) {
	r.mu.Lock()
	sandbox := r.sandbox
	r.mu.Unlock()
	if sandbox == nil {
		return
	}
	if err := contain(func() error { return sandbox.Kill(context.WithoutCancel(ctx)) }); err != nil {
		r.log.ErrorContext(ctx, "kill sandbox", slog.Any("error", err))
	}
}

// report resolves the run on the queue. A run that the queue may repeat is not
// resolved before this worker has ceased to ask for work, if it is being stopped.
func (r *runner) report(ctx context.Context) run.Event {
	if r.run.Resolution().Outcome == run.Exception && r.w.drain.working.Err() != nil {
		r.w.asking.waitOver()
	}
	reporting, stop := r.reporting(ctx)
	defer stop()
	err := contain(func() error { return r.claim.Resolve(reporting, r.run.Resolution()) })
	switch {
	case err == nil:
		return run.Reported{}
	case errors.Is(err, queue.ErrClaimLost):
		r.log.InfoContext(ctx, "resolution was refused", slog.Any("error", err))
	default:
		r.log.ErrorContext(ctx, "run could not be resolved", slog.Any("error", err))
		// The worker ends. If another process comes before the lease is over, it
		// finds the resolution in the journal.
		r.untold = r.entry != nil && r.w.drain.saving.Err() != nil && time.Now().Before(r.claim.TakenUntil())
	}
	return run.ClaimLost{}
}

// reporting returns the context of a report, and a function that ends it. While
// the lease lasts, and for reportTime after that, a claim that seems to be lost
// does not end the report: that may be the report's own doing, of whose answer
// nothing is known yet. If it is not, the queue will say so to the report.
func (r *runner) reporting(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(r.w.drain.saving, cancel)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-r.held.Done():
			wait(ctx, max(time.Until(r.claim.TakenUntil()), reportTime))
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		unlink()
		cancel()
		wg.Wait()
	}
}

func newIncident() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
