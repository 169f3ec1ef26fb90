// Package fetch is the port through which content that a task names is fetched:
// images, and what is to be mounted.
package fetch

import (
	"context"
	"io"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Reference names content in one of three ways: as an artifact of a task, as an
// artifact of the task that the index has under a namespace, or by URL.
type Reference struct {
	TaskID    task.ID
	Namespace string
	Artifact  string // with TaskID or Namespace
	URL       string

	SHA256 string // hexadecimal, that the content must have; empty for any
}

// String returns the reference as task logs show it, such as
// "task abc artifact public/image.tar.zst". Credentials and the query of a URL
// are left out.
func (r Reference) String() string {
	switch {
	case r.Namespace != "":
		return "index " + r.Namespace + " artifact " + r.Artifact
	case r.TaskID != "":
		return "task " + string(r.TaskID) + " artifact " + r.Artifact
	default:
		return plainURL(r.URL)
	}
}

// Source finds content. Its methods are safe for concurrent use.
type Source interface {
	// Resolve finds out what r stands for at this moment, and that whoever
	// has these credentials may read it. A task that fetches what another task
	// fetched before thus proves its right to it, though nothing need be
	// transferred again. credentials returns the latest of the run.
	//
	// Faults: Malformed, if there is no such content or the task may not read
	// it; Unavailable, if retries did not help. Errors: errors.ErrUnsupported
	// if the source does not know such references.
	Resolve(ctx context.Context, r Reference, credentials func() task.Credentials) (Content, error)
}

// Content is what a reference stands for.
type Content struct {
	// Key is the same for the same content only, such as
	// "artifact:<taskId>/<runId>/<name>"; empty if content of that URL may
	// change from one fetch to the next.
	Key string

	// TaskID is the task whose artifact this is; empty for a URL.
	TaskID task.ID

	// Name ends in the extension that says what format the content has.
	Name string

	// Open returns the content from its start, decoded as HTTP's
	// Content-Encoding says, and its size in bytes, -1 if that is not known.
	// It retries until the content begins; a Read goes on after a broken
	// connection where the server allows it. The reader fails, at its end,
	// where the content has not the hash that the reference demands.
	//
	// Faults, of Read too: Failure, if the hash differs; Unavailable.
	Open func(ctx context.Context) (io.ReadCloser, int64, error)
}

// Fetch resolves references with the rights of the task that it belongs to.
type Fetch func(ctx context.Context, r Reference) (Content, error)
