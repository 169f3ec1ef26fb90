// Package tasklog is the port through which the logs of runs are recorded, and
// the form of what the worker itself writes to them.
package tasklog

import (
	"context"
	"io"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Recorder records logs. Its methods are safe for concurrent use.
type Recorder interface {
	// Record starts the log of a run, in place of what an earlier process may
	// have left of it. A run has one at a time.
	Record(id task.RunID) (Recording, error)

	// Resume goes on with the log of a run that an earlier process did not
	// close, however that process ended, and returns the position of the
	// engine's output that the log has reached. The log has all that was
	// written by calls of Write and Append that had returned, and nothing of
	// one that had not, unless storage failed: then it ends, with its position,
	// at the last call before that. A draft is left out, with what was appended
	// meanwhile.
	//
	// Errors: fs.ErrNotExist, if there is none.
	Resume(id task.RunID) (Recording, Position, error)

	// Keep frees what earlier processes have left of all runs but the given
	// ones. It is called before the first log is recorded or resumed.
	Keep(ids ...task.RunID) error
}

// Position is how far an engine has come with the output of a task. It is zero
// at the beginning and only grows; what it counts is the engine's to know.
type Position int64

// Recording is the log of one run. Its methods are safe for concurrent use.
type Recording interface {
	// Write appends p. It takes all of p, never returns an error and never
	// waits for a reader: storage that fails, or is full, costs the log
	// lines, which it says in their place, but not the task. Writing to a
	// sealed recording does nothing.
	io.Writer

	// Append is Write for the output of the engine, which is at a position
	// once p is in the log. p may be empty. What Write adds leaves the
	// position as it is.
	Append(p []byte, at Position)

	// Draft has what is written from now on be a draft, which a process that
	// resumes the recording does not find: it is going to do again what that is
	// about, and to say so. With false, what was written stays after all.
	Draft(on bool)

	// MidLine reports whether what was written last did not end a line.
	MidLine() bool

	// Open returns what was written so far, from the first byte.
	Open() (io.ReadCloser, error)

	// Follow returns what was and will be written, from the first byte: a Read
	// at the end waits for the next Write, returns io.EOF once the recording
	// is sealed, and ctx's error once ctx is done.
	Follow(ctx context.Context) (io.ReadCloser, error)

	// Seal ends the recording; what was written stays readable. It is
	// idempotent.
	Seal() error

	// Close seals the recording and frees its storage. Readers that are open
	// may go on or fail. It is idempotent.
	Close() error
}
