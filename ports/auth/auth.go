// Package auth is the port through which scopes are expanded.
package auth

import (
	"context"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Expander knows which scopes the roles of a deployment stand for.
type Expander interface {
	// Expand returns s with the scopes of all roles that s assumes, and of the
	// roles that those assume. It retries transient errors.
	Expand(ctx context.Context, s task.Scopes) (task.Scopes, error)
}

// Authorize returns nil if the scopes of the task that it belongs to satisfy
// every scope of at least one of the sets.
//
// Faults: Malformed, with a message that lists the sets; Unavailable, if roles
// could not be expanded.
type Authorize func(ctx context.Context, anyOf ...task.Scopes) error
