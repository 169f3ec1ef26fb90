// Package queue is the port through which a worker obtains work.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// ErrClaimLost is returned by the methods of a [Claim] once the queue no longer
// recognizes it: the run was canceled, its deadline passed, it was resolved, or
// the claim expired. The holder must stop the run, clean up, and report nothing.
var ErrClaimLost = errors.New("queue: claim lost")

// MaxClaims is how many runs one call of [Queue.Claim] can grant.
const MaxClaims = 32

// Queue hands out runs of the pending tasks in one task queue.
//
// Implementations bound every attempt in time and retry Resolve, but leave the
// repetition of Claim and Reclaim to the caller, who knows how long it is worth
// trying. All methods are safe for concurrent use.
type Queue interface {
	// Claim waits until at least one task is pending and claims up to n of
	// them, 1 ≤ n ≤ [MaxClaims], or returns no claims and a nil error if none
	// turned up in the time a poll may take.
	//
	// A claim that the queue granted is never dropped: if it granted any while
	// ctx was being canceled, they are returned with a nil error. Canceling
	// ctx thus ends the wait once the queue has answered, or cannot have
	// granted anything.
	Claim(ctx context.Context, n int) ([]Claim, error)

	// Resume returns the claim that s is what is left of, without asking the
	// queue, which may recognize it no longer: its methods tell.
	//
	// Errors: that of task.Parse.
	Resume(s Saved) (Claim, error)
}

// Saved is what a claim consists of, for a process that is to hold it on behalf
// of another one.
type Saved struct {
	Run         task.RunID
	Definition  json.RawMessage // of the task, as it came
	TakenUntil  time.Time
	Credentials task.Credentials
}

// Claim is an exclusive, expiring hold on one run. Its methods are safe for
// concurrent use.
type Claim interface {
	// Run returns which run this is a hold on.
	Run() task.RunID

	// Task returns the definition of the task as it was claimed.
	Task() task.Definition

	// TakenUntil returns when the claim expires unless reclaimed.
	TakenUntil() time.Time

	// Credentials returns those most recently granted with the claim. Every
	// call about the run uses them.
	Credentials() task.Credentials

	// Reclaim tries once to extend the claim and to replace its credentials.
	//
	// Errors: ErrClaimLost; any other one may be gone in the next attempt.
	Reclaim(ctx context.Context) error

	// Check asks the queue whether the run is still this worker's, which is
	// cheaper than a Reclaim and extends nothing.
	//
	// Errors: ErrClaimLost; any other one says nothing of the claim.
	Check(ctx context.Context) error

	// Resolve reports the resolution of the run, ending the claim, and
	// retries until it is reported or ctx is done. Resolving a run as it is
	// already resolved is no error. The outcome must be Completed, Failed or
	// Exception.
	//
	// Errors: ErrClaimLost; any other one has outlived its retries.
	Resolve(ctx context.Context, r run.Resolution) error
}

// Save returns what a claim consists of now.
func Save(c Claim) Saved {
	return Saved{Run: c.Run(), Definition: c.Task().Raw, TakenUntil: c.TakenUntil(), Credentials: c.Credentials()}
}
