package docker

import (
	"context"

	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Images provides the images of tasks. Its methods are safe for concurrent use.
type Images interface {
	// Acquire brings an image to the daemon, unless it is there, and keeps it
	// there until it is released.
	//
	// Faults: Malformed, Unavailable, Failure.
	Acquire(ctx context.Context, r ImageRef, o ImageOptions) (Image, error)

	// Hold keeps an image there that a container of an earlier worker uses. The
	// function releases it, and is called once.
	Hold(id string) (release func())
}

// ImageRef names an image in exactly one of two ways.
type ImageRef struct {
	Name    string // in a registry, with tag or digest
	Archive fetch.Reference
}

// ImageOptions is what the task that asks for an image brings along.
type ImageOptions struct {
	Log       *tasklog.Log
	Authorize auth.Authorize
	Fetch     fetch.Fetch
}

// Image is an image on the daemon.
type Image struct {
	ID          string // of the daemon, a hash of its content
	ArchiveHash string // of the archive that it came in, such as "sha256:…"; empty if there was none
	Entrypoint  []string
	Command     []string
	User        string // that commands run as, and maybe the group after a colon; empty for root
	WorkDir     string // absolute; empty for the root
	Release     func() // is called once
}
