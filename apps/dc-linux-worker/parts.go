package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/journalfile"
	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/adapters/native"
	"github.com/taskcluster/taskcluster-worker/adapters/otel"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/payload/dockerworker"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// hooks are what a command wants of the worker that it runs. The zero hooks want
// nothing.
type hooks struct {
	Temporary bool   // caches go with the worker
	State     string // directory for what the next process has to know; empty if there is none
	Decorate  func(tasklog.Recorder) tasklog.Recorder
	Observe   func(worker.Report)
}

// parts are what a worker is made of. They are made in this order: signals have
// to be heeded before there is anything that they could leave behind.
type parts struct {
	Interrupts interrupt.Source
	Queue      queue.Queue
	Engine     engine.Engine
	Plugins    plugins
	Fetch      fetch.Source
	Translate  payload.Translator
	Artifacts  artifact.Opener
	Logs       tasklog.Recorder
	Journal    journal.Journal
	Auth       auth.Expander
	Telemetry  telemetry.Telemetry
	Log        *slog.Logger
	Hooks      hooks
}

func newDeps(p parts) worker.Deps {
	return worker.Deps{
		Queue:      p.Queue,
		Engine:     p.Engine,
		Plugins:    p.Plugins.enabled,
		Disabled:   p.Plugins.disabled,
		Artifacts:  p.Artifacts,
		Logs:       p.Logs,
		Journal:    p.Journal,
		Auth:       p.Auth,
		Fetch:      p.Fetch,
		Translate:  p.Translate,
		Interrupts: []interrupt.Source{p.Interrupts},
		Telemetry:  p.Telemetry,
		Compile:    jsonschema.Compile,
		Log:        p.Log,
		Observe:    p.Hooks.Observe,
	}
}

func recorder(r *logfile.Recorder, h hooks) tasklog.Recorder {
	if h.Decorate == nil {
		return r
	}
	return h.Decorate(r)
}

func logConfigOf(h hooks) logfile.Config {
	if h.State == "" {
		return logfile.Config{}
	}
	return logfile.Config{Dir: filepath.Join(h.State, "logs")}
}

// newJournal opens the journal of a worker whose runs outlive it.
func newJournal(ctx context.Context, h hooks, tel telemetry.Telemetry, log *slog.Logger) (journal.Journal, func(), error) {
	if h.State == "" {
		return nil, func() {}, nil
	}
	return journalfile.Open(ctx, journalfile.Config{Dir: filepath.Join(h.State, "journal"), Wait: time.Minute}, tel, log)
}

func noTelemetry() telemetry.Telemetry { return telemetry.Off{} }

// deployment is where a worker works, and as whom.
type deployment struct {
	RootURL     string
	Credentials task.Credentials

	// CancelGrace and RetryFor are those of taskcluster.Config.
	CancelGrace, RetryFor time.Duration
}

func configuredDeployment(c config) deployment {
	return deployment{RootURL: c.RootURL, Credentials: task.Credentials(c.Credentials)}
}

// embeddedDeployment is a queue in this process. It ends with its only worker,
// so that a claim which it grants in the last moment is no loss, and there is no
// network between them that might get better.
func embeddedDeployment(s *devqueue.Server) deployment {
	return deployment{
		RootURL: s.RootURL(), Credentials: s.Credentials(),
		CancelGrace: time.Millisecond, RetryFor: time.Second,
	}
}

func workerSettings(c config) worker.Config {
	return worker.Config{
		Pool:     c.Worker.Pool,
		Group:    c.Worker.Group,
		ID:       c.Worker.ID,
		Version:  moduleVersion(),
		Instance: c.Worker.InstanceType,
		Capacity: c.Worker.Capacity,
		Poll:     c.Worker.PollInterval,
	}
}

func taskclusterConfig(c config, d deployment) taskcluster.Config {
	return taskcluster.Config{
		RootURL:     d.RootURL,
		Credentials: d.Credentials,
		TaskQueueID: c.Worker.Pool,
		WorkerGroup: c.Worker.Group,
		WorkerID:    c.Worker.ID,
		StorageType: taskcluster.StorageType(c.Artifacts.StorageType),
		CancelGrace: d.CancelGrace,
		RetryFor:    d.RetryFor,
	}
}

func urlFetchConfig(c config) urlfetch.Config { return urlfetch.Config{Loopback: c.Fetch.Loopback} }

func newFetch(artifacts *taskcluster.Fetch, urls *urlfetch.Source) fetch.Source {
	return fetch.Sources{artifacts, urls}
}

// newTranslator returns what understands payloads of docker-worker, where they
// can be executed.
func newTranslator(c config) (payload.Translator, error) {
	if c.Engine != docker.Name {
		return nil, nil
	}
	return dockerworker.NewTranslator(jsonschema.Compile)
}

func nativeSettings(c config) native.Config {
	return native.Config{
		Dir:      c.Native.Dir,
		Capacity: c.Worker.Capacity,
		Limits: native.Limits{
			MemoryBytes:       int64(c.Native.Limits.Memory),
			CPUs:              c.Native.Limits.CPU,
			PIDs:              c.Native.Limits.PIDs,
			SharedMemoryBytes: int64(c.Native.Limits.SharedMemory),
		},
		Grace:           c.Native.Grace,
		NoNewPrivileges: c.Native.NoNewPrivileges,
	}
}

func envConfig(c config, d deployment) env.Config {
	_, workerType, _ := strings.Cut(c.Worker.Pool, "/")
	return env.Config{
		RootURL:      d.RootURL,
		WorkerPool:   c.Worker.Pool,
		WorkerGroup:  c.Worker.Group,
		WorkerType:   workerType,
		InstanceType: c.Worker.InstanceType,
		Location:     c.Worker.Location,
		PublicIP:     c.Worker.PublicIP,
	}
}

func maxRunTimeConfig(c config) maxruntime.Config {
	return maxruntime.Config{MaxTaskRunTime: int64(c.Worker.MaxTaskRunTime / time.Second)}
}

func otelConfig(c config) otel.Config {
	return otel.Config{
		Service: "dc-linux-worker",
		Version: moduleVersion(),
		Attributes: []slog.Attr{
			slog.String("taskcluster.worker_pool", c.Worker.Pool),
			slog.String("taskcluster.worker_group", c.Worker.Group),
			slog.String("taskcluster.worker_id", c.Worker.ID),
		},
	}
}
