// Package engine is the port through which tasks are executed.
//
// An [Engine] makes a [Builder] for each run. Plugins configure the builder,
// Start turns it into a [Sandbox], and waiting for the sandbox yields a
// [ResultSet]. Each step takes over what the one before it held, so a run holds
// exactly one of the three at any time and disposes of that one:
//
//	Engine ── NewBuilder ──► Builder ── Start ──► Sandbox ── Wait ──► ResultSet
//	                            │                    │                    │
//	                          Close                Abort                Close
//
// What not every engine can do is in separate interfaces, such as
// [ProxyAttacher] and [Volumes], which a value may implement besides. A call
// that a value supports in principle but not as configured fails with an error
// matching [errors.ErrUnsupported].
package engine

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// ErrAborted is returned by [Sandbox.Wait] after [Sandbox.Abort].
var ErrAborted = errors.New("engine: sandbox aborted")

// Engine executes tasks in sandboxes. Its methods are safe for concurrent use.
type Engine interface {
	// Name is that of the engine's section in the configuration.
	Name() string

	// PayloadSchema is the JSON schema of the engine's part of task.payload:
	// an object schema with properties and required.
	PayloadSchema() []byte

	// NewBuilder starts to acquire what the run needs, such as an image. It
	// need not wait: Start does.
	//
	// Faults: Malformed, if the payload asks for what the engine cannot do or
	// the task has no scopes for.
	NewBuilder(ctx context.Context, o Options) (Builder, error)

	// Close releases what the engine holds. No builder, sandbox or result set
	// may be left open.
	Close() error
}

// Options describes the run a [Builder] is for.
type Options struct {
	Run        task.RunID
	Definition task.Definition
	Payload    []byte          // the engine's part, valid against PayloadSchema
	Dialect    payload.Dialect // of the payload that the task's author wrote
	Log        *tasklog.Log    // takes the task's output, and a block of lines about each command
	Authorize  auth.Authorize  // checks the task's scopes
	Fetch      fetch.Fetch     // fetches with the task's rights
}

// Builder is a sandbox in the making. It is not safe for concurrent use.
type Builder interface {
	// SetEnv sets an environment variable, in place of one of that name which
	// was set before or which the engine would provide.
	//
	// Faults: Malformed, if the engine cannot set such a name or value.
	SetEnv(name, value string) error

	// Start starts the sandbox, which owns what the builder held. It returns
	// once the sandbox is there; that a command cannot be executed is for the
	// sandbox to find out. If Start fails, it has released everything.
	//
	// Faults: Malformed, Failure, Unavailable.
	Start(ctx context.Context) (Sandbox, error)

	// Close abandons a builder. It does nothing after Start, and is idempotent.
	Close() error
}

// Sandbox is a task in execution. Its methods are safe for concurrent use.
type Sandbox interface {
	// Wait waits for the sandbox to terminate with all its processes, and for
	// its output to be in the log. Every call returns the same ResultSet or
	// the same error; canceling ctx abandons the wait, not the sandbox.
	//
	// Errors: ErrAborted; any other one means that how the task ended cannot
	// be told, and that the sandbox still has to be aborted.
	Wait(ctx context.Context) (ResultSet, error)

	// Kill ends the task as though it had failed and returns without waiting
	// for the end: Wait returns a ResultSet that reports no success. It does
	// nothing once the sandbox has terminated.
	Kill(ctx context.Context) error

	// Abort ends the task, waits for the end, and releases everything: Wait
	// returns ErrAborted. Where Wait has already yielded a ResultSet it does
	// nothing, since that owns the rest. It is idempotent.
	Abort(ctx context.Context) error
}

// ResultSet is what a terminated sandbox left behind. Its methods are safe for
// concurrent use, but for Close.
type ResultSet interface {
	// Result returns how the task ended.
	Result() Result

	// FS returns the files in the sandbox, rooted at the root that the task
	// saw, and read with the rights that the task had: links are followed
	// within that root only. It can be used until Close.
	FS() fs.FS

	// Dir returns the task's working directory as a path in FS, such as
	// "home/task_1".
	Dir() string

	// Close removes the sandbox's files. It is idempotent and may leave the
	// removal to the engine's background.
	Close() error
}

// Result says how a task ended and what it used.
type Result struct {
	Success  bool   // every command exited zero, and nothing ended the task
	ExitCode int    // of the last command that ran; -1 if none ran or it did not exit by itself
	Signal   string // what ended that command otherwise, such as "killed"; empty if it exited
	OOM      bool   // the task ran out of the memory it may use
	Killed   bool   // Sandbox.Kill ended the task

	// Interrupted says that the task was told to stop before it ended, by an
	// Interrupter. Where it was not Killed, it ended in its own way.
	Interrupted bool

	User, Kernel, Wall time.Duration // of all commands
	PeakMemory         int64         // bytes; 0 if it is not known
}
