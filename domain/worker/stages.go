package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// begin starts the task log with its head.
func (r *runner) begin() outcome {
	recording, err := r.w.deps.Logs.Record(r.claim.Run())
	if err != nil {
		return outcome{err: fmt.Errorf("start task log: %w", err)}
	}
	r.recording, r.taskLog = recording, tasklog.New(recording)
	cfg := r.w.cfg
	r.taskLog.Infof("Worker Pool: %s\nWorker Group: %s\nWorker ID: %s\nWorker Version: %s", cfg.Pool, cfg.Group, cfg.ID, cfg.Version)
	if cfg.Instance != "" {
		r.taskLog.Infof("Instance Type: %s", cfg.Instance)
	}
	r.taskLog.Infof("Task ID: %s\nRun ID: %d\n=== Task Starting ===", r.claim.Run().Task, r.claim.Run().Run)
	return outcome{event: run.Begun{}}
}

// prepare checks the payload, makes the plugins' parts, and lets them and the
// engine acquire what takes long, all at once.
func (r *runner) prepare(ctx context.Context) (run.Event, error) {
	authorize := newAuthorizer(r.claim.Task().Scopes, r.w.deps.Auth)
	contents, err := r.w.readPayload(r.claim.Task(), r.taskLog)
	if err != nil {
		r.addFinishers(authorize)
		return nil, err
	}
	if err := r.addPlugins(contents, authorize); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(r.plugins)+1)
	var wg sync.WaitGroup
	for i, p := range r.plugins {
		if preparer, ok := p.part.(plugin.Preparer); ok {
			wg.Go(func() {
				if errs[i] = r.hook(ctx, p, "prepare", preparer.Prepare); errs[i] != nil {
					cancel()
				}
			})
		}
	}
	wg.Go(func() {
		if errs[len(r.plugins)] = r.newBuilder(ctx, contents, authorize); errs[len(r.plugins)] != nil {
			cancel()
		}
	})
	wg.Wait()
	return run.Prepared{}, decisive(errs)
}

// decisive returns the first error that is not the mere echo of another one
// that stopped everything.
func decisive(errs []error) error {
	var echo error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		if echo == nil {
			echo = err
		}
	}
	return echo
}

func (r *runner) newBuilder(ctx context.Context, c contents, authorize auth.Authorize) error {
	return contain(func() error {
		b, err := r.w.deps.Engine.NewBuilder(ctx, r.options(c, authorize))
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.builder = b
		return nil
	})
}

// options describes the run to the engine.
func (r *runner) options(c contents, authorize auth.Authorize) engine.Options {
	return engine.Options{
		Run:        r.claim.Run(),
		Definition: r.claim.Task(),
		Payload:    c.parts[r.w.deps.Engine.Name()],
		Dialect:    c.dialect,
		Log:        r.taskLog,
		Authorize:  authorize,
		Fetch:      r.fetch,
	}
}

// build lets the plugins configure the sandbox, and starts it.
func (r *runner) build(ctx context.Context) (run.Event, error) {
	for _, p := range r.plugins {
		if b, ok := p.part.(plugin.SandboxBuilder); ok {
			err := r.hook(ctx, p, "build-sandbox", func(ctx context.Context) error { return b.BuildSandbox(ctx, r.builder) })
			if err != nil {
				return nil, err
			}
		}
	}
	sandbox, err := r.builder.Start(ctx)
	if err != nil {
		return nil, err
	}
	r.note(journal.Started{At: time.Now()})
	r.place(sandbox)
	return run.Started{}, nil
}

// await waits for the end of the sandbox.
func (r *runner) await(ctx context.Context) (run.Event, error) {
	for _, p := range r.plugins {
		// Those of a sandbox that was taken over were called by the process
		// that had started it.
		if s, ok := p.part.(plugin.Starter); ok && r.saved == nil {
			err := r.hook(ctx, p, "started", func(ctx context.Context) error { return s.Started(ctx, r.sandbox) })
			if f := fault.Classify(err); f != nil && f.Kind == fault.Failure {
				r.tell(f.Message)
				r.killSandbox(ctx)
			} else if err != nil {
				return nil, err
			}
		}
	}
	if err := r.awaitResults(ctx); err != nil {
		return nil, err
	}
	result := r.results.Result()
	if result.Killed && r.work.Err() != nil {
		return nil, context.Cause(r.work) // which is why it was killed: no verdict on the task
	}
	return run.Exited{Success: result.Success}, nil
}

// awaitResults waits for the sandbox to end and takes over what it leaves.
func (r *runner) awaitResults(ctx context.Context) error {
	results, err := r.sandbox.Wait(ctx)
	if err != nil {
		return fmt.Errorf("wait for sandbox: %w", err)
	}
	r.untell()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results, r.sandbox = results, nil
	return nil
}

// collect lets every plugin read what the sandbox left. The first error
// decides; where the task has failed already, only its own wish for another run
// changes that.
func (r *runner) collect(ctx context.Context) (run.Event, error) {
	var first *fault.Error
	for _, p := range r.plugins {
		s, ok := p.part.(plugin.Stopper)
		if !ok {
			continue
		}
		err := r.hook(ctx, p, "stopped", func(ctx context.Context) error { return s.Stopped(ctx, r.results) })
		if err == nil {
			continue
		}
		f := fault.Classify(err)
		if f.Kind == fault.Internal {
			r.log.ErrorContext(ctx, "plugin failed", slog.String("plugin", p.name), slog.Any("error", err))
		}
		if first == nil {
			first = f
		} else {
			r.tell(f.Message)
		}
	}
	failed := !r.results.Result().Success
	switch {
	case first == nil:
		return run.Collected{Success: true}, nil
	case first.Kind == fault.Failure, failed && first.Kind != fault.Intermittent:
		r.tell(first.Message)
		return run.Collected{}, nil
	default:
		return nil, first
	}
}

// finish returns the stage that seals the log and lets the plugins upload it. The
// run is the owner's, who may have stopped it meanwhile.
func (r *runner) finish(resolution run.Resolution) func(context.Context) (run.Event, error) {
	if resolution.Outcome == run.Undecided {
		resolution.Outcome = run.Completed
	}
	return func(ctx context.Context) (run.Event, error) {
		return run.Finished{}, r.sealAndFinish(ctx, resolution)
	}
}

// sealAndFinish writes the tail of the log, seals it, and calls the Finishers
// that have not succeeded before.
func (r *runner) sealAndFinish(ctx context.Context, resolution run.Resolution) error {
	r.taskLog.Infof("=== Task Finished ===\nTask Duration: %v\nTask Resolution: %v", time.Since(r.started).Round(time.Millisecond), resolution)
	if err := r.recording.Seal(); err != nil {
		r.log.ErrorContext(ctx, "seal task log", slog.Any("error", err))
	}
	var errs []error
	for _, p := range r.plugins {
		f, ok := p.part.(plugin.Finisher)
		if !ok || p.finished {
			continue
		}
		err := r.hook(ctx, p, "finished", func(ctx context.Context) error { return f.Finished(ctx, resolution, r.recording) })
		p.finished = err == nil
		errs = append(errs, err)
	}
	return decisive(errs)
}

// salvage saves what it can of a run that is over for the queue.
func (r *runner) salvage(ctx context.Context) {
	if r.taskLog == nil || r.bare || !r.settle(ctx) {
		return
	}
	saving, cancel := until(ctx, r.w.drain.saving, r.w.cfg.Salvage)
	defer cancel()
	ctx, cancel = until(ctx, r.w.drain.salvaging, r.w.cfg.Salvage-logShare(r.w.cfg.Salvage))
	defer cancel()
	if r.sandbox != nil {
		if err := contain(func() error { return r.awaitResults(ctx) }); err != nil {
			r.log.WarnContext(ctx, "the sandbox left nothing to salvage", slog.Any("error", err))
		}
	}
	r.recording.Draft(true)  // the next process salvages anew
	if len(r.plugins) == 0 { // the run was stopped before any could be made
		r.addFinishers(newAuthorizer(r.claim.Task().Scopes, r.w.deps.Auth))
	}
	for _, p := range r.plugins {
		if s, ok := p.part.(plugin.Salvager); ok && !p.idle {
			err := r.hook(ctx, p, "salvage", func(ctx context.Context) error {
				return s.Salvage(ctx, r.run.Resolution().Reason, r.results)
			})
			if err != nil {
				r.log.WarnContext(ctx, "salvage", slog.String("plugin", p.name), slog.Any("error", err))
				r.tell(fault.Classify(err).Message)
			}
		}
	}
	r.untell() // a sandbox that does not end, of whatever else
	if err := r.sealAndFinish(saving, r.run.Resolution()); err != nil {
		r.log.WarnContext(saving, "salvage task log", slog.Any("error", err))
	}
}

// dispose releases everything that the run holds, whatever fails on the way.
func (r *runner) dispose(ctx context.Context) {
	ctx, cancel := until(ctx, context.Background(), r.w.cfg.Cleanup)
	defer cancel()
	r.untell()
	if r.pending != nil {
		r.abortSandbox(ctx) // which ends the stage, too
	}
	if !r.settle(ctx) {
		return
	}
	r.abortSandbox(ctx)
	r.discardOrphan(ctx)
	var closers []namedClose
	if r.results != nil {
		closers = append(closers, namedClose{"result set", r.results.Close})
	}
	if r.builder != nil {
		closers = append(closers, namedClose{"sandbox builder", r.builder.Close})
	}
	for _, p := range slices.Backward(r.plugins) {
		closers = append(closers, namedClose{"plugin " + p.name, p.part.Close})
	}
	if r.recording != nil && !r.untold { // it goes with the report
		closers = append(closers, namedClose{"task log", r.recording.Close})
	}
	for _, c := range closers {
		if err := contain(c.close); err != nil {
			r.log.ErrorContext(ctx, "close", slog.String("what", c.name), slog.Any("error", err))
		}
	}
}

type namedClose struct {
	name  string
	close func() error
}

// abortSandbox ends the sandbox for good and leaves nothing of it.
func (r *runner) abortSandbox(ctx context.Context) {
	r.mu.Lock()
	sandbox := r.sandbox
	r.mu.Unlock()
	if sandbox == nil {
		return
	}
	if err := contain(func() error { return sandbox.Abort(ctx) }); err != nil {
		r.log.ErrorContext(ctx, "abort sandbox", slog.Any("error", err))
	}
}

// until returns a context with the values of ctx that ends with parent, or
// after d.
func until(ctx, parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	unlink := context.AfterFunc(parent, cancel)
	return ctx, func() {
		unlink()
		cancel()
	}
}
