package engine

import (
	"context"
	"errors"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// ErrDetached is returned by [Sandbox.Wait] after [Reattacher.Detach].
var ErrDetached = errors.New("engine: sandbox detached")

// Reattacher is implemented by engines whose sandboxes outlive the worker's
// process, whether that is killed, crashes, or makes way for the next one. What
// a sandbox yields while nobody is attached is kept for the next process; where
// that is much, the sandbox may be made to wait for it. One that nobody comes for
// within a time that the engine is configured with ends.
// An engine can also be told that no process comes after its own: then its
// sandboxes end with the process, however that ends.
//
// An orphan is a sandbox, running or ended, that an earlier process has started
// and neither aborted nor closed the result set of. Engine.Close leaves orphans
// as they are. Volumes and proxies of a builder are not the engine's to keep:
// whoever reattaches must have kept the volumes, and proxies of an orphan
// answer no more.
type Reattacher interface {
	// Orphans returns the runs whose sandboxes can be reattached. It has all of
	// them from the moment that the engine is made. An error says that they are
	// not known for now, and keeps the worker from touching any.
	Orphans(ctx context.Context) ([]task.RunID, error)

	// Reattach takes over an orphan, as Builder.Start would have returned it.
	// o is as for NewBuilder. o.Log gets what follows the position that it has
	// reached, each piece with its own position: with the position that
	// tasklog.Recorder.Resume returned, it lacks and repeats nothing. If
	// Reattach fails, the orphan remains one.
	//
	// Errors: fs.ErrNotExist, if the run has no orphan; any other one says why
	// it cannot be reattached, such as that it was made by a version of the
	// engine which this one does not understand.
	Reattach(ctx context.Context, o Options, from tasklog.Position) (Reattached, error)

	// Discard ends an orphan, waits for the end, and removes everything of it.
	// It is idempotent, and does nothing if the run has no orphan.
	Discard(ctx context.Context, run task.RunID) error

	// Detach closes the engine, as Close does, but leaves its sandboxes as
	// orphans to the next process, as though this one were killed. Waits end
	// with ErrDetached; Kill, Abort and ResultSet.Close do nothing any more,
	// and must not be in progress. Nothing is written to logs once it returns.
	Detach() error
}

// Reattached is a sandbox that an earlier process has started.
type Reattached interface {
	Sandbox

	// Started returns when that was, by the clock of this process, which may
	// have been set since.
	Started() time.Time
}
