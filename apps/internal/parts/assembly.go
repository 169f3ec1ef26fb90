package parts

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Assembly is a worker, with what it needs at its beginning and at its end.
type Assembly struct {
	Config     worker.Config
	Deployment Deployment
	Worker     *worker.Worker
	Client     *taskcluster.Client
	Identity   identity.Provider
	Host       interrupt.Host // nil if the machine stays
	Hooks      Hooks
}

// Work has the worker work for its deployment until it is told to stop. Then the
// worker takes its leave of the deployment, shut closes all that it is made of,
// and the host retires. None of this is for a worker that has not begun, or that
// has made way for the next process.
func (a *Assembly) Work(ctx context.Context, shut func(), log *slog.Logger) error {
	over, err := a.work(ctx, log)
	if err != nil {
		Report(ctx, a.Identity, err, log)
	}
	if over {
		a.remove(ctx, log)
	}
	shut()
	if !over || a.Host == nil {
		return err
	}
	why := "the worker has stopped"
	if err != nil {
		why = err.Error()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retirement)
	defer cancel()
	if err := a.Host.Retire(ctx, why); err != nil {
		log.ErrorContext(ctx, "host does not retire", slog.Any("error", err))
	}
	return err
}

// work has the worker work; over tells whether it has done all that it ever will.
func (a *Assembly) work(ctx context.Context, log *slog.Logger) (over bool, err error) {
	if err := verify(ctx, a.Client, a.Hooks.Signals); err != nil {
		return false, err
	}
	log.InfoContext(ctx, "worker started", slog.String("rootURL", a.Deployment.RootURL), slog.String("pool", a.Config.Pool),
		slog.String("group", a.Config.Group), slog.String("id", a.Config.ID), slog.Int("capacity", a.Config.Capacity),
		slog.String("version", a.Config.Version))
	defer a.Hooks.Handover.watch(ctx, a.Worker, log)()
	if err := a.Worker.Run(ctx); errors.Is(err, worker.ErrLeft) {
		log.InfoContext(ctx, "worker makes way")
		a.Hooks.Handover.made()
		return false, nil
	} else if err != nil {
		// Whoever starts the worker again lets it go on with its runs.
		return !errors.Is(err, worker.ErrUnresumed), err
	}
	log.InfoContext(ctx, "worker stopped")
	return true, nil
}

// Report shows what ends the worker to the operators of its pool, where that is
// news to them and they can be reached.
func Report(ctx context.Context, who identity.Provider, failure error, log *slog.Logger) {
	if !reportable(failure) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	kind, title := "startup-error", "The worker cannot start"
	if errors.Is(failure, worker.ErrUnhealthy) {
		kind, title = "too-many-errors", "The worker gives up"
	}
	err := who.ReportError(ctx, identity.Report{Kind: kind, Title: title, Description: failure.Error()})
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		log.WarnContext(ctx, "error cannot be reported", slog.Any("error", err))
	}
}

// reportable reports whether an error is one that the deployment is to be told of,
// and lets it be.
func reportable(err error) bool {
	if errors.Is(err, errStopped) {
		return false
	}
	_, refused := errors.AsType[*taskcluster.CredentialsError](err)
	_, unreachable := errors.AsType[*taskcluster.UnreachableError](err)
	return !refused && !unreachable
}

// retirement is how long whoever takes the host away has to say so.
const retirement = 2 * time.Minute

// removal is how long the deployment has to take note that the worker is gone,
// or of why.
const removal = 30 * time.Second

// remove has the deployment know that the worker is gone, where it keeps book.
func (a *Assembly) remove(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	switch err := a.Identity.Remove(ctx); {
	case err == nil:
		log.InfoContext(ctx, "worker removed")
	case !errors.Is(err, errors.ErrUnsupported):
		log.ErrorContext(ctx, "worker cannot be removed", slog.Any("error", err))
	}
}

// verify returns why the deployment does not let the worker work. It ends with a
// signal, which the worker then finds waiting.
func verify(ctx context.Context, c *taskcluster.Client, caught *signals.Caught) error {
	ctx, stop := caught.Context(ctx, 0)
	defer stop()
	err := c.Verify(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
