package queuetest

import (
	"context"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// memoryClaim is a claim on a run in a Memory.
type memoryClaim struct {
	m    *Memory
	id   task.RunID
	task task.Definition

	mu          sync.Mutex
	takenUntil  time.Time
	credentials task.Credentials
}

// Run implements queue.Claim.
func (c *memoryClaim) Run() task.RunID { return c.id }

// Task implements queue.Claim.
func (c *memoryClaim) Task() task.Definition { return c.task }

// TakenUntil implements queue.Claim.
func (c *memoryClaim) TakenUntil() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takenUntil
}

// Credentials implements queue.Claim.
func (c *memoryClaim) Credentials() task.Credentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.credentials
}

// Reclaim implements queue.Claim.
func (c *memoryClaim) Reclaim(ctx context.Context) error {
	return c.m.begin(Call{Op: Reclaim, Run: c.id}).play(ctx, func() error {
		return c.m.held(c.id, func(r *memoryRun) {
			r.takenUntil = c.m.leaseEnd()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.takenUntil, c.credentials = r.takenUntil, c.m.credentials(c.id.Task)
		})
	})
}

// Check implements queue.Claim.
func (c *memoryClaim) Check(ctx context.Context) error {
	return c.m.begin(Call{Op: Check, Run: c.id}).play(ctx, func() error {
		return c.m.held(c.id, nil)
	})
}

// Resolve implements queue.Claim.
func (c *memoryClaim) Resolve(ctx context.Context, r run.Resolution) error {
	return c.m.begin(Call{Op: Resolve, Run: c.id, Resolution: r}).play(ctx, func() error {
		return c.m.report(c.id, r)
	})
}
