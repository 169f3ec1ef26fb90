package parts

import (
	"log/slog"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/activity"
	"github.com/taskcluster/taskcluster-worker/adapters/drainfile"
	"github.com/taskcluster/taskcluster-worker/adapters/pressure"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Lifecycle are the sources of interruptions that have to do with what a worker
// does and where it runs, and with no cloud.
type Lifecycle []interrupt.Source

// NewLifecycle returns the sources. A worker that a command runs for its own end
// has none.
func NewLifecycle(l section.Lifecycle, w section.Worker, c section.Linux, d Deployment, h Hooks, a *activity.Source, client *taskcluster.Client, e engine.Engine, log *slog.Logger) (Lifecycle, error) {
	if !h.Service {
		return nil, nil
	}
	drain := drainfile.New(drainfile.Config{Dir: h.State, Every: l.DrainInterval, Grace: AtOnce(w)}, log)
	room, err := pressure.New(pressure.Config{
		Dirs: disks(h, c, e), Disk: int64(l.MinDisk), Memory: int64(l.MinMemory),
	}, log)
	if err != nil {
		return nil, err
	}
	sources := Lifecycle{a, drain, room}
	if d.Registered {
		sources = append(sources, taskcluster.NewTermination(client, l.AskManager, log))
	}
	return sources, nil
}

// disks returns the directories that tasks fill.
func disks(h Hooks, c section.Linux, e engine.Engine) []string {
	dirs := []string{h.State, c.Native.Dir}
	if d, ok := e.(interface{ DataRoot() string }); ok && d.DataRoot() != "" {
		dirs = append(dirs, d.DataRoot())
	}
	return dirs
}

// AtOnce returns how much time a worker has that is to stop its tasks at once: no
// more than what stops them.
func AtOnce(w section.Worker) time.Duration {
	return max(time.Second, min(w.ShutdownGrace, w.StopLead))
}

// ActivityConfig returns how much a worker does.
func ActivityConfig(l section.Lifecycle, h Hooks) activity.Config {
	if !h.Service {
		return activity.Config{}
	}
	return activity.Config{Idle: l.MaxIdle, Life: l.MaxLife}
}
