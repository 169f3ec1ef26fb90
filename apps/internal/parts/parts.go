// Package parts has what workers for Linux are made of. Each function makes one
// part from the configuration, for the wire files of the apps, which say what
// there is and how it fits together.
package parts

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/activity"
	"github.com/taskcluster/taskcluster-worker/adapters/journalfile"
	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
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

// Hooks are what a command wants of the worker that it runs. The zero Hooks want
// nothing.
type Hooks struct {
	Signals   *signals.Caught // nil: from when the worker is made
	Service   bool            // the worker ends as it is configured, and not with the command
	Temporary bool            // caches go with the worker
	State     string          // directory for what the next process has to know; empty if none comes
	TakeOver  bool            // a worker that uses State is asked to make way
	Handover  *Handover       // nil if the worker makes way for nobody
	Decorate  func(tasklog.Recorder) tasklog.Recorder
	Observe   func(worker.Report)
}

// orphanTimeout returns for how long a task goes on without a worker, as engines
// have it: not at all, where no process comes to go on with it.
func (h Hooks) orphanTimeout() time.Duration {
	if h.State == "" {
		return -1
	}
	return 0 // the default
}

// Parts are what a worker is made of. They are made in this order: signals have
// to be heeded before there is anything that they could leave behind.
type Parts struct {
	Interrupts []interrupt.Source
	Activity   *activity.Source // is told of runs; may be nil
	Queue      queue.Queue
	Engine     engine.Engine
	Plugins    Plugins
	Fetch      fetch.Source
	Translate  payload.Translator
	Artifacts  artifact.Opener
	Logs       tasklog.Recorder
	Journal    journal.Journal
	Auth       auth.Expander
	Telemetry  telemetry.Telemetry
	Log        *slog.Logger
	Hooks      Hooks
}

// NewDeps returns the ports of a worker.
func NewDeps(p Parts) worker.Deps {
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
		Interrupts: p.Interrupts,
		Telemetry:  p.Telemetry,
		Compile:    jsonschema.Compile,
		Log:        p.Log,
		Began:      p.began,
		Observe:    p.observe,
	}
}

func (p Parts) began(task.RunID) {
	if p.Activity != nil {
		p.Activity.Began()
	}
}

func (p Parts) observe(r worker.Report) {
	if p.Activity != nil {
		p.Activity.Ended()
	}
	if p.Hooks.Observe != nil {
		p.Hooks.Observe(r)
	}
}

// NewRecorder returns what records task logs.
func NewRecorder(r *logfile.Recorder, h Hooks) tasklog.Recorder {
	if h.Decorate == nil {
		return r
	}
	return h.Decorate(r)
}

// NewJournal opens the journal of a worker whose runs outlive it. For as long as
// it is open, nobody else uses the directory for the state.
func NewJournal(ctx context.Context, h Hooks, tel telemetry.Telemetry, log *slog.Logger) (journal.Journal, func(), error) {
	if h.State == "" {
		return nil, func() {}, nil
	}
	if err := makeStateDir(h.State); err != nil {
		return nil, nil, err
	}
	cfg := journalfile.Config{Dir: filepath.Join(h.State, "journal"), Wait: time.Minute}
	if h.TakeOver {
		cfg.Ask = askToMakeWay
	}
	return journalfile.Open(ctx, cfg, tel, log)
}

// NewFetch returns what payloads can fetch from.
func NewFetch(artifacts *taskcluster.Fetch, urls *urlfetch.Source) fetch.Source {
	return fetch.Sources{artifacts, urls}
}

// NoTelemetry is that of a worker that runs nothing.
func NoTelemetry() telemetry.Telemetry { return telemetry.Off{} }
