package taskcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// StaticIdentity is that of a worker which was given its credentials.
type StaticIdentity struct{ c *Client }

var _ identity.Provider = StaticIdentity{}

// NewStaticIdentity returns the identity that c is configured with.
func NewStaticIdentity(c *Client) StaticIdentity { return StaticIdentity{c} }

// Worker implements identity.Provider.
func (s StaticIdentity) Worker() identity.Worker {
	return identity.Worker{Pool: s.c.cfg.TaskQueueID, Group: s.c.cfg.WorkerGroup, ID: s.c.cfg.WorkerID}
}

// Credentials implements identity.Provider. They change only by
// [Client.SetCredentials].
func (s StaticIdentity) Credentials() task.Credentials { return s.c.credentials() }

// Remove implements identity.Provider.
func (s StaticIdentity) Remove(context.Context) error {
	return fmt.Errorf("remove a worker that never registered: %w", errors.ErrUnsupported)
}

// ReportError implements identity.Provider. It makes one attempt.
func (s StaticIdentity) ReportError(ctx context.Context, r identity.Report) error {
	return NewWorkerManager(s.c).ReportError(ctx, r)
}

// Identity is that of a worker which proves it to worker-manager. As an
// interrupt.Source, it announces that credentials could not be renewed: tasks
// that are running may finish, since they have credentials of their own.
type Identity struct {
	StaticIdentity
	manager *WorkerManager
	cfg     IdentityConfig
	log     *slog.Logger
	pool    json.RawMessage
	notices chan interrupt.Notice
}

var (
	_ identity.Provider = (*Identity)(nil)
	_ interrupt.Source  = (*Identity)(nil)
)

// IdentityConfig says how to register.
type IdentityConfig struct {
	ProviderID string    // of the worker's provider, such as "community-tc-workers-aws"
	Prove      Prover    // makes what that provider takes as proof
	BootTime   time.Time // of the host; unknown if zero

	// File is where the registration is kept for the next process, which some
	// providers do not let register again. Empty for none. Its content is
	// secret.
	File string
}

// NewIdentity registers the worker that c is configured for, unless an earlier
// process has. Its own credentials c has from then on, and they are renewed
// until the returned function is called. It retries transient errors for a while.
func NewIdentity(ctx context.Context, c *Client, cfg IdentityConfig, log *slog.Logger) (*Identity, func(), error) {
	if cfg.ProviderID == "" || cfg.Prove == nil {
		return nil, nil, errors.New("register worker: no provider is configured")
	}
	i := &Identity{
		StaticIdentity: NewStaticIdentity(c), manager: NewWorkerManager(c), cfg: cfg, log: log,
		notices: make(chan interrupt.Notice, 1),
	}
	first, known := i.recall(ctx)
	if known {
		c.SetCredentials(first.Credentials)
		log.InfoContext(ctx, "worker is registered already", slog.Time("expires", first.Expires))
	} else {
		err := c.retry(ctx, "worker-manager.registerWorker", c.cfg.RetryFor, func() (err error) {
			first, err = i.register(ctx)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("register worker: %w", err)
		}
		i.keep(ctx, first)
	}
	i.pool = first.Config
	renewing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { i.renew(renewing, first) })
	return i, func() {
		cancel()
		wg.Wait()
	}, nil
}

// Remove implements identity.Provider.
func (i *Identity) Remove(ctx context.Context) error {
	if err := i.manager.Remove(ctx); err != nil {
		return err
	}
	return i.forget()
}

// Wait implements interrupt.Source.
func (i *Identity) Wait(ctx context.Context) (interrupt.Notice, error) {
	select {
	case n := <-i.notices:
		return n, nil
	case <-ctx.Done():
		return interrupt.Notice{}, ctx.Err()
	}
}

// register makes one attempt to register with a fresh proof.
func (i *Identity) register(ctx context.Context) (Registration, error) {
	proof, err := i.cfg.Prove(ctx)
	if err != nil {
		return Registration{}, fmt.Errorf("prove identity to %s: %w", i.cfg.ProviderID, err)
	}
	r, err := i.manager.Register(ctx, Proof{ProviderID: i.cfg.ProviderID, Identity: proof, BootTime: i.cfg.BootTime})
	if err == nil {
		i.c.SetCredentials(r.Credentials)
	}
	return r, err
}

// renew keeps the worker registered, and announces if that has failed.
func (i *Identity) renew(ctx context.Context, r Registration) {
	for {
		if r.Expires.IsZero() {
			return // as credentials do that are for ever
		}
		if !sleep(ctx, renewalIn(time.Until(r.Expires))) {
			return
		}
		next, err := i.reregister(ctx, r)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			i.log.ErrorContext(ctx, "credentials cannot be renewed", slog.Time("expires", r.Expires), slog.Any("error", err))
			i.notices <- interrupt.Notice{Cause: "the worker's credentials cannot be renewed"}
			return
		}
		i.log.InfoContext(ctx, "credentials are renewed", slog.Time("expires", next.Expires))
		next.Config = i.pool // which comes with the first registration alone
		i.keep(ctx, next)
		r = next
	}
}

// reregister exchanges the secret of r, and tries to until the credentials
// expire. A secret is good for one exchange: if the answer to that is lost, the
// worker registers as it did at first, where its provider allows that.
func (i *Identity) reregister(ctx context.Context, r Registration) (Registration, error) {
	ctx, cancel := context.WithDeadline(ctx, r.Expires)
	defer cancel()
	var next Registration
	err := i.c.retry(ctx, "worker-manager.reregisterWorker", forever, func() (err error) {
		next, err = i.manager.Reregister(ctx, r.Secret)
		return err
	})
	if err == nil {
		i.c.SetCredentials(next.Credentials)
		return next, nil
	}
	if transient(err) {
		return next, err // the time is over
	}
	i.log.WarnContext(ctx, "secret is refused: the worker registers anew", slog.Any("error", err))
	again := i.c.retry(ctx, "worker-manager.registerWorker", forever, func() (err error) {
		next, err = i.register(ctx)
		return err
	})
	if again != nil {
		return next, errors.Join(err, again)
	}
	return next, nil
}

// renewalIn returns when to renew credentials that are good for so long: after
// about two thirds of that, and not all workers of a pool at once.
func renewalIn(life time.Duration) time.Duration {
	d := life * 2 / 3
	if d <= 0 {
		return 0
	}
	return d - rand.N(d/20+1) //nolint:gosec // G404: spreads load, keeps no secret
}

// sleep reports whether d passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
