// Package queuetest tests implementations of the queue port, and has a queue in
// memory for the tests of everything else.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Harness sets up the queue under test. Its methods may fail the test.
type Harness interface {
	// Queue returns the queue. Every call during a test returns the same one.
	Queue(tb testing.TB) queue.Queue

	// AddTask makes a task pending that has, at least, the payload, the scopes
	// and the metadata of d, and leave for another run if one is lost.
	AddTask(tb testing.TB, d task.Definition) task.ID

	// Cancel cancels a task behind the worker's back.
	Cancel(tb testing.TB, id task.ID)

	// Expire returns once the claim on a run has expired.
	Expire(tb testing.TB, id task.RunID)

	// Resolution returns how the worker resolved a run.
	Resolution(tb testing.TB, id task.RunID) run.Resolution
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // several of them wait for claims to expire
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []struct {
	name  string
	check func(context.Context, testing.TB, Harness) error
}{
	{"claims at most n", claimsAtMostN},
	{"claims each run once", claimsEachRunOnce},
	{"hands out the definition", handsOutTheDefinition},
	{"returns no claims when nothing is pending", returnsNoClaims},
	{"waits for a task", waitsForATask},
	{"ends the wait when canceled", endsTheWait},
	{"keeps what was granted while being canceled", keepsWhatWasGranted},
	{"refuses numbers out of range", refusesNumbersOutOfRange},
	{"holds credentials", holdsCredentials},
	{"reclaiming extends the claim", reclaimingExtends},
	{"checking extends nothing", checkingExtendsNothing},
	{"reclaiming a canceled run loses the claim", losesCanceled(Reclaim)},
	{"checking a canceled run loses the claim", losesCanceled(Check)},
	{"resolving a canceled run loses the claim", losesCanceled(Resolve)},
	{"reclaiming an expired claim loses it", losesExpired(Reclaim)},
	{"checking an expired claim loses it", losesExpired(Check)},
	{"resolving an expired claim loses it", losesExpired(Resolve)},
	{"reclaiming a resolved run loses the claim", losesResolved(Reclaim)},
	{"checking a resolved run loses the claim", losesResolved(Check)},
	{"reports each resolution", reportsEachResolution},
	{"resolving twice the same way is no error", resolvesTwice},
	{"the first resolution stands", firstResolutionStands},
	{"refuses what is no resolution", refusesNoResolution},
	{"a shutdown makes another run", retries(run.WorkerShutdown)},
	{"an intermittent task makes another run", retries(run.IntermittentTask)},
	{"an expired claim makes another run", expiryRetries},
	{"claims are independent of each other", claimsAreIndependent},
	{"may be used concurrently", mayBeUsedConcurrently},
	{"resumes what was claimed", resumesWhatWasClaimed},
	{"a resumed claim is held", resumedIsHeld},
	{"reclaiming a resumed claim that expired loses it", losesResumed(Reclaim)},
	{"checking a resumed claim that expired loses it", losesResumed(Check)},
	{"resolving a resumed claim that expired loses it", losesResumed(Resolve)},
	{"resumes no claim on what is no task", resumesNoTask},
}

// allResolutions are all that the queue accepts.
var allResolutions = []run.Resolution{
	{Outcome: run.Completed},
	{Outcome: run.Failed},
	{Outcome: run.Exception, Reason: run.WorkerShutdown},
	{Outcome: run.Exception, Reason: run.MalformedPayload},
	{Outcome: run.Exception, Reason: run.ResourceUnavailable},
	{Outcome: run.Exception, Reason: run.InternalError},
	{Outcome: run.Exception, Reason: run.IntermittentTask},
}

// take adds n tasks and claims them all.
func take(ctx context.Context, tb testing.TB, h Harness, n int) ([]queue.Claim, error) {
	tb.Helper()
	for range n {
		h.AddTask(tb, task.Definition{})
	}
	return claimAll(ctx, tb, h, n)
}

// takeOne adds a task and claims it.
func takeOne(ctx context.Context, tb testing.TB, h Harness) (queue.Claim, error) {
	tb.Helper()
	claims, err := take(ctx, tb, h, 1)
	if err != nil {
		return nil, err
	}
	return claims[0], nil
}

// claimAll claims until it has n claims or ctx is done.
func claimAll(ctx context.Context, tb testing.TB, h Harness, n int) ([]queue.Claim, error) {
	tb.Helper()
	var claims []queue.Claim
	for len(claims) < n {
		more, err := h.Queue(tb).Claim(ctx, min(n-len(claims), queue.MaxClaims))
		if err != nil {
			return nil, fmt.Errorf("Claim, after %d claims: %w", len(claims), err)
		}
		claims = append(claims, more...)
	}
	return claims, nil
}

// perform calls the method of c that op names.
func perform(ctx context.Context, c queue.Claim, op Op) error {
	switch op {
	case Reclaim:
		return c.Reclaim(ctx)
	case Check:
		return c.Check(ctx)
	default:
		return c.Resolve(ctx, run.Resolution{Outcome: run.Completed})
	}
}

// wantLost returns an error unless op loses the claim.
func wantLost(ctx context.Context, c queue.Claim, op Op) error {
	if err := perform(ctx, c, op); !errors.Is(err, queue.ErrClaimLost) {
		return fmt.Errorf("%s returned %q, want ErrClaimLost", op, fmt.Sprint(err))
	}
	return nil
}
