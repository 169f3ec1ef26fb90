//go:build wireinject

package main

import (
	"context"
	"log/slog"

	"github.com/google/wire"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/adapters/otel"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/artifacts"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/caches"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/exitstatus"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/tasklog"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// composeWorker makes a worker of a deployment. It says which adapter is behind
// which port, which plugins there are, and where the configuration of each comes
// from.
func composeWorker(ctx context.Context, c config, d deployment, h hooks, log *slog.Logger) (*assembly, func(), error) {
	panic(wire.Build(
		wire.Struct(new(assembly), "*"),
		worker.New, workerSettings,
		newDeps, wire.Struct(new(parts), "*"),

		// Adapters, each with the port that it is behind.
		taskcluster.NewClient, taskclusterConfig,
		taskcluster.NewQueue, wire.Bind(new(queue.Queue), new(*taskcluster.Queue)),
		taskcluster.NewArtifacts, wire.Bind(new(artifact.Opener), new(*taskcluster.Artifacts)),
		taskcluster.NewAuth, wire.Bind(new(auth.Expander), new(*taskcluster.Auth)),
		newEngine,
		newCaches,
		taskcluster.NewPurgeCache, wire.Bind(new(cache.Purges), new(*taskcluster.PurgeCache)),
		newFetch, taskcluster.NewFetch, urlfetch.New, urlFetchConfig,
		newTranslator,
		logfile.New, logConfigOf, recorder,
		newJournal,
		otel.New, otelConfig,
		signals.New, wire.Value(signals.Config{}), wire.Bind(new(interrupt.Source), new(*signals.Source)),

		// Plugins.
		inOrder,
		env.New, envConfig,
		maxruntime.New, maxRunTimeConfig,
		exitstatus.New, wire.Value(exitstatus.Config{}),
		artifacts.New, wire.Value(artifacts.Config{}),
		caches.New, wire.Value(caches.Config{}),
		tasklog.New, wire.Value(tasklog.Config{}),
	))
}

// composeEmbedded makes a worker with a queue of its own, which is closed after
// the worker.
func composeEmbedded(ctx context.Context, c config, q devqueue.Config, h hooks, log *slog.Logger) (*embedded, func(), error) {
	panic(wire.Build(wire.Struct(new(embedded), "*"), composeWorker, devqueue.Open, embeddedDeployment))
}

// composeIdle makes a worker that knows its payloads but cannot run them.
func composeIdle(c config, log *slog.Logger) (*worker.Worker, error) {
	panic(wire.Build(
		worker.New, workerSettings, newDeps, wire.Struct(new(parts), "Engine", "Plugins"),
		idleEngine,
		inOrder,
		env.New, envConfig, wire.Value(deployment{}), noTelemetry,
		maxruntime.New, maxRunTimeConfig,
		exitstatus.New, wire.Value(exitstatus.Config{}),
		artifacts.New, wire.Value(artifacts.Config{}),
		caches.New, wire.Value(caches.Config{}), noCaches, noPurges,
		tasklog.New, wire.Value(tasklog.Config{}),
	))
}
