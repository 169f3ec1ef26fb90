// Package artifact is the port through which runs publish their output.
package artifact

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// ErrReserved is returned for a name that another part of the worker produces
// in the same run, such as the name of the task log.
var ErrReserved = errors.New("artifact: name is reserved by the worker")

// Opener opens the store that belongs to a run.
type Opener interface {
	// Open returns the store of c's run. It neither blocks nor fails, and the
	// store need not be closed.
	Open(c queue.Claim) Store
}

// Store holds the artifacts of one run. Its methods retry transient errors, may
// be called concurrently, and replace an artifact of the same name as far as
// the queue allows: an upload may be repeated, a redirect may become a link.
//
// Faults: Malformed, if the queue refuses the artifact for what the task asked;
// Unavailable, if retries did not help; Shutdown, if only the process of the worker
// that had begun to store it could go on. Other errors: queue.ErrClaimLost, and what
// Content.Open returned.
type Store interface {
	// Upload stores c. The artifact is complete if and only if Upload returns
	// nil.
	Upload(ctx context.Context, m Meta, c Content) error

	// Redirect makes the artifact a redirect to url.
	Redirect(ctx context.Context, m Meta, url string) error

	// Link makes the artifact an alias of another artifact of the run.
	Link(ctx context.Context, m Meta, target string) error

	// Explain stores, in place of the artifact, why there is none.
	Explain(ctx context.Context, m Meta, why Absence, detail string) error
}

// Meta describes an artifact.
type Meta struct {
	Name        string
	ContentType string    // as in the HTTP header; not used by Explain
	Expires     time.Time // not before the task's deadline, not after its own expiry
}

// Content is what an artifact holds, in the form in which it is transferred.
type Content struct {
	Encoding string // as in the HTTP header; "gzip", or empty for none
	Size     int64  // bytes, as Open yields them
	Length   int64  // bytes once decoded; Size where there is no encoding

	// Open yields the content from its start. It is called once for each
	// attempt, never concurrently.
	Open func() (io.ReadCloser, error)
}

// Absence says why an artifact could not be made.
type Absence string

// The absences the queue knows of.
const (
	FileMissing     Absence = "file-missing-on-worker"
	InvalidResource Absence = "invalid-resource-on-worker"
	NotReadable     Absence = "file-not-readable-on-worker"
)
