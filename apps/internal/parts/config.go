package parts

import (
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/adapters/otel"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
)

// WorkerConfig returns the configuration of the use cases. A worker that a command
// runs for its own end has any number of tasks.
func WorkerConfig(w section.Worker, l section.Lifecycle, h Hooks, d Deployment, p Program) worker.Config {
	tasks := l.MaxTasks
	if !h.Service {
		tasks = 0
	}
	return worker.Config{
		Pool:     d.Worker.Pool,
		Group:    d.Worker.Group,
		ID:       d.Worker.ID,
		Version:  p.Version,
		Instance: d.Machine.InstanceType,
		Capacity: w.Capacity,
		Tasks:    tasks,
		Poll:     w.PollInterval,
		Lead:     orNone(w.StopLead),
		Grace:    orNone(w.TaskGrace),
	}
}

// orNone returns a duration as the use cases have it, for which zero is the
// default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// NewSignals returns what announces the signals that a command has caught, or
// those from now on.
func NewSignals(w section.Worker, h Hooks) (*signals.Source, func()) {
	if h.Signals == nil {
		h.Signals = signals.Catch()
	}
	return signals.New(signals.Config{Grace: w.ShutdownGrace}, h.Signals)
}

// TaskclusterConfig returns the configuration of the connection to a deployment.
func TaskclusterConfig(c section.Linux, d Deployment) taskcluster.Config {
	return taskcluster.Config{
		RootURL:     d.RootURL,
		Credentials: d.Credentials,
		As:          d.As,
		TaskQueueID: d.Worker.Pool,
		WorkerGroup: d.Worker.Group,
		WorkerID:    d.Worker.ID,
		StorageType: taskcluster.StorageType(c.Artifacts.StorageType),
		CancelGrace: d.CancelGrace,
		RetryFor:    d.RetryFor,
	}
}

// LogfileConfig says where task logs are recorded, and how much of them.
func LogfileConfig(w section.Worker, h Hooks) logfile.Config {
	c := logfile.Config{Max: int64(w.MaxLog), MaxSetting: "worker.maxLog"}
	if h.State != "" {
		c.Dir = filepath.Join(h.State, "logs")
	}
	return c
}

// URLFetchConfig returns the configuration of fetching from URLs.
func URLFetchConfig(c section.Linux) urlfetch.Config {
	return urlfetch.Config{Loopback: c.Fetch.Loopback}
}

// EnvConfig returns what tasks are told of where they run.
func EnvConfig(d Deployment) env.Config {
	_, workerType, _ := strings.Cut(d.Worker.Pool, "/")
	return env.Config{
		RootURL:      d.RootURL,
		WorkerPool:   d.Worker.Pool,
		WorkerGroup:  d.Worker.Group,
		WorkerType:   workerType,
		InstanceType: d.Machine.InstanceType,
		Location:     d.Machine.Location,
		PublicIP:     d.Machine.PublicIP,
	}
}

// MaxRunTimeConfig returns how long tasks may run.
func MaxRunTimeConfig(w section.Worker) maxruntime.Config {
	return maxruntime.Config{MaxTaskRunTime: int64(w.MaxTaskRunTime / time.Second)}
}

// OTelConfig returns what telemetry says of where it comes from.
func OTelConfig(d Deployment, p Program) otel.Config {
	return otel.Config{
		Service: p.Name,
		Version: p.Version,
		Attributes: []slog.Attr{
			slog.String("taskcluster.worker_pool", d.Worker.Pool),
			slog.String("taskcluster.worker_group", d.Worker.Group),
			slog.String("taskcluster.worker_id", d.Worker.ID),
		},
	}
}
