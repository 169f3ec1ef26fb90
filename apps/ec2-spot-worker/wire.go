//go:build wireinject

package main

import (
	"context"
	"log/slog"

	"github.com/google/wire"

	"github.com/taskcluster/taskcluster-worker/adapters/activity"
	"github.com/taskcluster/taskcluster-worker/adapters/ec2"
	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/adapters/otel"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/artifacts"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/caches"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/exitstatus"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/tasklog"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// composeWorker makes a worker that has joined its pool. It says which adapter is
// behind which port, which plugins there are, and where the configuration of each
// comes from.
func composeWorker(ctx context.Context, c config, j parts.Joined, m *ec2.Metadata, h parts.Hooks, log *slog.Logger) (*parts.Assembly, func(), error) {
	panic(wire.Build(
		wire.Struct(new(parts.Assembly), "*"),
		worker.New, parts.WorkerConfig,
		parts.NewDeps, wire.Struct(new(parts.Parts), "*"),
		thisProgram, wire.FieldsOf(new(config), "Linux", "Worker", "Lifecycle"),
		wire.FieldsOf(new(workerConfig), "Worker"), wire.FieldsOf(new(lifecycleConfig), "Lifecycle"),
		wire.FieldsOf(new(parts.Joined), "Deployment"),

		// Adapters, each with the port that it is behind.
		taskcluster.NewClient, parts.TaskclusterConfig,
		taskcluster.NewQueue, wire.Bind(new(queue.Queue), new(*taskcluster.Queue)),
		taskcluster.NewArtifacts, wire.Bind(new(artifact.Opener), new(*taskcluster.Artifacts)),
		taskcluster.NewAuth, wire.Bind(new(auth.Expander), new(*taskcluster.Auth)),
		newIdentity,
		parts.NewEngine,
		parts.NewCaches,
		taskcluster.NewPurgeCache, wire.Bind(new(cache.Purges), new(*taskcluster.PurgeCache)),
		parts.NewFetch, taskcluster.NewFetch, urlfetch.New, parts.URLFetchConfig,
		parts.NewTranslator,
		parts.NewRecorder, logfile.New, parts.LogfileConfig,
		parts.NewJournal,
		otel.New, parts.OTelConfig,
		interrupts, parts.NewSignals,
		ec2.NewInterruptions, interruptionConfig,
		parts.NewLifecycle, activity.New, parts.ActivityConfig,
		newHost,

		// Plugins.
		parts.InOrder,
		env.New, parts.EnvConfig,
		maxruntime.New, parts.MaxRunTimeConfig,
		exitstatus.New, wire.Value(exitstatus.Config{}),
		artifacts.New, wire.Value(artifacts.Config{}),
		caches.New, wire.Value(caches.Config{}),
		tasklog.New, wire.Value(tasklog.Config{}),
	))
}

// composeIdle makes a worker that knows its payloads but cannot run them.
func composeIdle(c config, log *slog.Logger) (*worker.Worker, error) {
	panic(wire.Build(
		worker.New, parts.WorkerConfig, parts.NewDeps, wire.Struct(new(parts.Parts), "Engine", "Plugins"),
		thisProgram, wire.FieldsOf(new(config), "Linux", "Worker", "Lifecycle"),
		wire.FieldsOf(new(workerConfig), "Worker"), wire.FieldsOf(new(lifecycleConfig), "Lifecycle"), wire.Value(parts.Hooks{}),
		parts.IdleEngine,
		parts.InOrder,
		env.New, parts.EnvConfig, wire.Value(parts.Deployment{}), parts.NoTelemetry,
		maxruntime.New, parts.MaxRunTimeConfig,
		exitstatus.New, wire.Value(exitstatus.Config{}),
		artifacts.New, wire.Value(artifacts.Config{}),
		caches.New, wire.Value(caches.Config{}), parts.NoCaches, parts.NoPurges,
		tasklog.New, wire.Value(tasklog.Config{}),
	))
}
