// Package identity is the port through which a worker learns who it is, and by
// which it takes leave.
package identity

import (
	"context"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Worker tells one worker from all others.
type Worker struct {
	Pool  string // the task queue that it claims from, such as "proj/linux"
	Group string
	ID    string
}

// Provider knows who this worker is, on whose behalf it renews credentials. Its
// methods are safe for concurrent use.
type Provider interface {
	// Worker returns who this worker is, which does not change.
	Worker() Worker

	// Credentials returns the worker's own credentials, which are renewed
	// before they expire: whoever needs them asks for them each time.
	Credentials() task.Credentials

	// Remove says that the worker is at its end, so that its host can be
	// terminated. It retries transient errors, and is called once.
	//
	// Errors: errors.ErrUnsupported, if nobody keeps book of the worker.
	Remove(ctx context.Context) error

	// ReportError shows an error to the operators of the worker's pool.
	//
	// Errors: errors.ErrUnsupported, if there is no way to.
	ReportError(ctx context.Context, r Report) error
}

// Report is an error that the operators of a pool should see.
type Report struct {
	Kind        string         // [-a-z0-9]+, up to 128 characters
	Title       string         // one line
	Description string         // Markdown
	Extra       map[string]any // of JSON's types; may be nil
}
