// Package plugin is the port through which features are added to runs.
//
// A [Plugin] lives as long as the worker and makes a [TaskPlugin] for each run.
// A TaskPlugin takes part in the stages whose hook interface it implements. The
// hooks of one TaskPlugin never run concurrently. In one stage, [Preparer]s run
// concurrently with each other and with the engine's own preparation; all other
// hooks run one after the other, in the order in which the app declares its
// plugins.
//
// Hooks may fail with faults; any other error is internal and counts against
// the worker's health. Where several hooks of a stage fail, the first in the
// declared order decides. A panic in a hook is an internal error of its run and
// of nothing else.
package plugin

import (
	"context"
	"io"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Plugin adds a feature to every run of a worker. Its methods are safe for
// concurrent use.
type Plugin interface {
	// Name is unique among the plugins of a worker, and that of the plugin's
	// section in the configuration.
	Name() string

	// PayloadSchema is the JSON schema of the properties of task.payload that
	// the plugin defines, as an object schema with properties and required, or
	// nil if it defines none. Flags of features are in the property
	// "features", an object that the plugins of a worker share.
	PayloadSchema() []byte

	// NewTaskPlugin makes the plugin's part in a run. It does nothing that
	// takes long: that is for Prepare. It may return nil if the run has no
	// need of the plugin.
	//
	// Faults: Malformed.
	NewTaskPlugin(t Task) (TaskPlugin, error)
}

// Requester is a Plugin that tells whether a payload asks for it. Of any other
// one, a payload that has a property of the plugin's does, unless that is a flag
// which is false.
type Requester interface {
	// Requested returns the property by which a payload asks for the plugin,
	// such as "payload.mounts", or "" if it does not. payload is the plugin's
	// part.
	Requested(payload []byte) (property string, err error)
}

// Settler is a Plugin that keeps something for runs beyond the worker's process.
type Settler interface {
	// Settled is called once, when every run that an earlier process has left
	// was resumed or given up: what was kept for those that were not resumed
	// is nobody's any more. Other runs may have begun before. What is left when
	// ctx is done is for the next process.
	Settled(ctx context.Context) error
}

// Task is what a plugin may know of a run and do to it.
type Task struct {
	Run         task.RunID
	Definition  task.Definition
	Payload     []byte                  // the plugin's part, valid against PayloadSchema
	Dialect     payload.Dialect         // of the payload that the task's author wrote
	Credentials func() task.Credentials // the latest; do not keep the result
	Artifacts   artifact.Store
	Log         *tasklog.Log   // sealed before Finished
	Authorize   auth.Authorize // checks the task's scopes
	Fetch       fetch.Fetch    // fetches with the task's rights

	// Hold has the next process of the worker know that the run holds a volume
	// of a cache: in Held, if that process goes on with the run.
	Hold func(volumeID, cache string)
	Held map[string]string // caches by volume
}

// TaskPlugin is a plugin's part in one run. It may implement any of the hook
// interfaces.
type TaskPlugin interface {
	// Close releases everything. It is always called, once, after all hooks;
	// its error only concerns the operator.
	Close() error
}

// ArtifactNamer is a TaskPlugin that produces artifacts by fixed names. No
// other plugin of the run can then write to them. It is asked before any hook.
type ArtifactNamer interface {
	ArtifactNames() []string
}

// Preparer is called first, to acquire what takes long. Where it or another
// Preparer fails, or the run is stopped, ctx is canceled.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// SandboxBuilder is called before the sandbox starts.
type SandboxBuilder interface {
	BuildSandbox(ctx context.Context, b engine.Builder) error
}

// Starter is called once the sandbox has started. The sandbox may be kept until
// Stopped or Close, whichever comes first.
type Starter interface {
	Started(ctx context.Context, s engine.Sandbox) error
}

// Resumer is called, in place of all hooks before Stopped, where the sandbox was
// started by an earlier process of the worker. A plugin that has done more in
// those hooks than its Stopper can do without implements it.
type Resumer interface {
	// Resumed is told when the sandbox was started. It may be kept as in
	// Started.
	Resumed(ctx context.Context, s engine.Sandbox, started time.Time) error
}

// Stopper is called with what the sandbox left behind, before the run is
// reported completed or failed. It is called even where a Stopper before it
// failed. A fault of kind Failure fails the run.
type Stopper interface {
	Stopped(ctx context.Context, r engine.ResultSet) error
}

// Salvager is called after the run was reported as an exception, to save what
// can be saved before ctx is done. r is nil if the sandbox left nothing behind;
// it is the same as in Stopped if that was called.
type Salvager interface {
	Salvage(ctx context.Context, why run.Reason, r engine.ResultSet) error
}

// Finisher is called once the task log is sealed: before the run is reported
// completed or failed, but after it was reported as an exception, since the
// queue takes artifacts that late only then. log reads from the start.
type Finisher interface {
	Finished(ctx context.Context, r run.Resolution, log Log) error
}

// Log is a sealed task log.
type Log interface {
	// Open returns the log from its first byte.
	Open() (io.ReadCloser, error)
}
