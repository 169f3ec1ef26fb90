package parts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// Joined is a worker that has become one of its pool.
type Joined struct {
	Identity   *taskcluster.Identity
	Deployment Deployment       // as which the worker is registered
	Pool       setting.Document // what the pool configures
}

// Join has a worker register with worker-manager, as of a provider, and asks what
// its pool configures. The returned function ends what renews the worker's
// credentials.
func Join(ctx context.Context, c section.Linux, d Deployment, provider string, prove taskcluster.Prover, log *slog.Logger) (Joined, func(), error) {
	if err := makeStateDir(c.StateDir()); err != nil {
		return Joined{}, nil, err
	}
	d.Credentials, d.Registered = task.Credentials{}, true
	client, disconnect, err := taskcluster.NewClient(TaskclusterConfig(c, d), telemetry.Off{}, log)
	if err != nil {
		return Joined{}, nil, err
	}
	who, end, err := taskcluster.NewIdentity(ctx, client, taskcluster.IdentityConfig{
		ProviderID: provider, Prove: prove, BootTime: bootTime(), File: filepath.Join(c.StateDir(), "registration.json"),
	}, log)
	if err != nil {
		disconnect()
		return Joined{}, nil, err
	}
	leave := func() {
		end()
		disconnect()
	}
	settings, err := who.PoolConfig(ctx)
	if err != nil {
		Report(ctx, who, err, log)
		leave()
		return Joined{}, nil, err
	}
	d.As = client
	return Joined{who, d, setting.Document{Name: "worker pool " + d.Worker.Pool, Content: settings}}, leave, nil
}

// errStopped says that a worker was told to stop while it was starting.
var errStopped = errors.New("stopped before the worker has started")

// startPatience is how long a worker that is told to stop may still be starting:
// then it can report the tasks of the process before it.
const startPatience = 5 * time.Second

// UnlessStopped takes a step of a worker's start, unless the process is told to
// stop well before that is done.
func UnlessStopped(ctx context.Context, c *signals.Caught, step func(context.Context) error) error {
	ctx, stop := c.Context(ctx, startPatience)
	defer stop()
	err := step(ctx)
	if err != nil && ctx.Err() != nil {
		return errStopped
	}
	return err
}

// bootTime returns when the machine was started, or the zero time if that is not
// known. It lets worker-manager measure how long that takes.
func bootTime() time.Time {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(content)) {
		var seconds int64
		if n, _ := fmt.Sscanf(line, "btime %d", &seconds); n == 1 {
			return time.Unix(seconds, 0)
		}
	}
	return time.Time{}
}

// makeStateDir makes the directory for the worker's state, which the worker
// alone may read. Users of tasks pass through those above it, where engines have
// their directories.
func makeStateDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o755) //nolint:gosec // G301: tasks pass through
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// Staying is the identity of a worker whose machine stays, for which it will be
// started again.
type Staying struct{ identity.Provider }

// Remove implements identity.Provider.
func (Staying) Remove(context.Context) error { return errors.ErrUnsupported }
