// Package cache is the port through which tasks keep files for the tasks after
// them: named caches, each in any number of copies, each copy a volume of the
// engine.
package cache

import (
	"context"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Store holds caches. No copy is leased twice at a time. Its methods are safe
// for concurrent use.
type Store interface {
	// Acquire leases the copy of a cache that was used last, among those that
	// are free, or else a new one. It does not wait for other leases.
	Acquire(ctx context.Context, name string) (Lease, error)

	// Adopt returns the lease that an earlier process had on a volume.
	//
	// Errors: fs.ErrNotExist, if none had one that was not adopted or
	// abandoned.
	Adopt(ctx context.Context, volumeID string) (Lease, error)

	// Abandon discards all leases of earlier processes that were not adopted:
	// nobody knows what state their copies are in.
	Abandon(ctx context.Context) error

	// Purge discards the copies of a cache that were made before a time: those
	// that are free now, the others when they are released.
	Purge(name string, before time.Time)
}

// Lease is a hold on one copy of a cache. Its methods are safe for concurrent
// use. One of Keep and Discard ends it; what is called later does nothing.
type Lease interface {
	// Volume returns where the files are. It stays the store's.
	Volume() engine.Volume

	// Fresh reports whether there was no copy, so that this one is empty.
	Fresh() bool

	// Keep returns the copy to the store, for whoever acquires it next.
	Keep() error

	// Discard frees the copy's storage.
	Discard() error
}

// Purge asks for all copies of a cache that were made before a time to be
// discarded.
type Purge struct {
	Name   string
	Before time.Time
}

// Purges knows which caches were asked to be purged. It is safe for concurrent
// use.
type Purges interface {
	// PurgeRequests returns the requests for the worker's pool that were made
	// since a time, or all that are open if it is zero. It retries transient
	// errors.
	PurgeRequests(ctx context.Context, since time.Time) ([]Purge, error)
}
