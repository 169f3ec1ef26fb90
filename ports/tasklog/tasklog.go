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
	// Record starts the log of a run. A run has one at a time.
	Record(id task.RunID) (Recording, error)
}

// Recording is the log of one run. Its methods are safe for concurrent use.
type Recording interface {
	// Write appends p. It takes all of p, never returns an error and never
	// waits for a reader: storage that fails, or is full, costs the log
	// lines, which it says in their place, but not the task. Writing to a
	// sealed recording does nothing.
	io.Writer

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
