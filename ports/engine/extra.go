package engine

import (
	"context"
	"io"
	"net/http"
)

// ProxyAttacher is implemented by builders that can lead requests out of the
// sandbox to the worker.
type ProxyAttacher interface {
	// AttachProxy serves requests of this sandbox alone for hostname with h,
	// and returns the URL by which the task reaches it. Names matching
	// [a-z]{3,22} are valid on every engine. The engine stops serving when
	// the sandbox terminates.
	AttachProxy(hostname string, h http.Handler) (url string, err error)
}

// VolumeAttacher is implemented by builders that can mount volumes.
type VolumeAttacher interface {
	// AttachVolume mounts v, which the same engine made, at path: absolute, or
	// relative to the task's working directory. The volume stays the caller's
	// and must be kept until the sandbox has terminated.
	//
	// Faults: Malformed, if there can be no volume at path.
	AttachVolume(path string, v Volume, readOnly bool) error
}

// Volume is storage that outlives a sandbox, and the worker's process. Only the
// engine that made it knows more.
type Volume interface {
	// ID identifies the volume among all that its engine ever made, by
	// letters, digits and hyphens.
	ID() string

	// Close frees the storage. No sandbox may use it. It is idempotent.
	Close() error
}

// Volumes is implemented by engines that can make volumes. Its methods are safe
// for concurrent use.
type Volumes interface {
	// NewVolume makes an empty volume, which the user of any task may write
	// to.
	NewVolume(ctx context.Context) (Volume, error)

	// OpenVolume returns a volume that was made before, maybe by an earlier
	// process.
	//
	// Errors: fs.ErrNotExist.
	OpenVolume(ctx context.Context, id string) (Volume, error)

	// KeepVolumes frees all volumes but those of the given IDs. It is called
	// before any sandbox is made.
	KeepVolumes(ctx context.Context, ids []string) error
}

// Shells is implemented by sandboxes that interactive shells can be opened in.
type Shells interface {
	// OpenShell starts a shell with the rights and the view of the task. It
	// ends with the sandbox, if not before.
	OpenShell(ctx context.Context, o ShellOptions) (Shell, error)
}

// ShellOptions says which shell to open. The zero value asks for the default
// one without a terminal.
type ShellOptions struct {
	Command       []string
	TTY           bool
	Columns, Rows uint16 // size of the terminal; 0 for the default
}

// Shell is an interactive process in a sandbox.
type Shell interface {
	Stdin() io.WriteCloser
	Stdout() io.Reader
	Stderr() io.Reader // empty under a TTY

	// Resize changes the size of the terminal.
	Resize(columns, rows uint16) error

	// Wait waits for the shell to exit. exitCode is -1 if it was killed.
	Wait(ctx context.Context) (exitCode int, err error)

	// Close kills the shell if it is still running. It is idempotent.
	Close() error
}

// Imaged is implemented by result sets of sandboxes that were made of an image.
type Imaged interface {
	// Image returns which image that was.
	Image() Image
}

// Image identifies an image by its content. Hashes are written as
// "sha256:<hexadecimal>".
type Image struct {
	Hash        string // by which the engine knows it
	ArchiveHash string // of the archive that it came in, as it was fetched; empty if it did not
}
