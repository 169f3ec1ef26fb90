// Package interrupt is the port through which a worker learns that it must stop,
// and by which it ends the use of its host.
package interrupt

import (
	"context"
	"time"
)

// Source announces interruptions.
type Source interface {
	// Wait waits for the next notice of this source: a second one may be more
	// urgent than the first. It returns an error only if ctx is done.
	Wait(ctx context.Context) (Notice, error)
}

// Notice announces an interruption. The worker claims nothing more.
type Notice struct {
	Cause string // for logs, such as "spot interruption"

	// Deadline is when the host goes away. Some minutes before, or at once
	// where no more are left, running tasks are stopped and reported, and what
	// is left of the time is for saving what they have. The zero Deadline lets
	// running tasks finish.
	Deadline time.Time
}
