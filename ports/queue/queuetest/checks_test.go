package queuetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	boom := errors.New("boom")
	nothing := func(context.Context, *brokenClaim) error { return nil }
	fails := func(context.Context, *brokenClaim) error { return boom }
	resolveFails := func(context.Context, *brokenClaim, run.Resolution) error { return boom }
	resolveNothing := func(context.Context, *brokenClaim, run.Resolution) error { return nil }

	defects := map[string][]broken{
		"claims at most n": {
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) { return m.Claim(ctx, n+1) }},
			{claim: claimNothing},
		},
		"claims each run once": {{claim: claimAgain()}},
		"hands out the definition": {
			{definition: func(d *task.Definition) { d.Payload = json.RawMessage(`{}`) }},
			{definition: func(d *task.Definition) { d.Scopes = nil }},
			{definition: func(d *task.Definition) { d.Metadata.Name = "" }},
			{definition: func(d *task.Definition) { d.Raw = nil }},
			{definition: func(d *task.Definition) { d.Deadline = time.Time{} }},
		},
		"returns no claims when nothing is pending": {
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
				claims, err := m.Claim(ctx, n)
				if len(claims) == 0 {
					err = boom
				}
				return claims, err
			}},
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
				m.AddTask(task.Definition{})
				return m.Claim(ctx, n)
			}},
		},
		"waits for a task": {
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) { return nil, boom }},
			{claim: claimNothing},
		},
		"ends the wait when canceled": {
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
				<-time.After(1500 * time.Millisecond) // longer than the check may take
				return nil, ctx.Err()
			}},
			{claim: func(_ context.Context, m *Memory, n int) ([]queue.Claim, error) {
				m.AddTask(task.Definition{})
				return m.Claim(context.Background(), n)
			}},
		},
		"keeps what was granted while being canceled": {
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
				claims, err := m.Claim(context.WithoutCancel(ctx), n)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				return claims, err
			}},
			{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
				claims, _ := m.Claim(context.WithoutCancel(ctx), n)
				return claims, ctx.Err()
			}},
		},
		"refuses numbers out of range": {{claim: func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
			return m.Claim(ctx, min(max(n, 1), queue.MaxClaims))
		}}},
		"holds credentials": {
			{credentials: func(c *brokenClaim) task.Credentials { return task.Credentials{} }},
			{credentials: func(c *brokenClaim) task.Credentials {
				if c.reclaims > 0 {
					return task.Credentials{ClientID: "a"}
				}
				return c.Claim.Credentials()
			}},
			{reclaim: fails},
		},
		"reclaiming extends the claim":              {{reclaim: nothing}, {reclaim: fails}, {until: func(*brokenClaim) time.Time { return time.Time{} }}},
		"checking extends nothing":                  {{check: func(ctx context.Context, c *brokenClaim) error { return c.Claim.Reclaim(ctx) }}, {check: fails}},
		"reclaiming a canceled run loses the claim": {{reclaim: nothing}, {reclaim: fails}},
		"checking a canceled run loses the claim":   {{check: nothing}, {check: fails}},
		"resolving a canceled run loses the claim":  {{resolve: resolveNothing}, {resolve: resolveFails}},
		"reclaiming an expired claim loses it":      {{reclaim: nothing}, {reclaim: fails}},
		"checking an expired claim loses it":        {{check: nothing}, {check: fails}},
		"resolving an expired claim loses it":       {{resolve: resolveNothing}, {resolve: resolveFails}},
		"reclaiming a resolved run loses the claim": {{reclaim: nothing}, {reclaim: fails}},
		"checking a resolved run loses the claim":   {{check: nothing}, {check: fails}},
		"reports each resolution": {
			{resolve: resolveNothing},
			{resolve: func(ctx context.Context, c *brokenClaim, r run.Resolution) error {
				if r.Outcome == run.Exception {
					r.Reason = run.InternalError
				}
				return c.Claim.Resolve(ctx, r)
			}},
		},
		"resolving twice the same way is no error": {{resolve: func(ctx context.Context, c *brokenClaim, r run.Resolution) error {
			if c.resolves++; c.resolves > 1 {
				return queue.ErrClaimLost
			}
			return c.Claim.Resolve(ctx, r)
		}}},
		"the first resolution stands": {{resolve: func(ctx context.Context, c *brokenClaim, r run.Resolution) error {
			if c.resolves++; c.resolves > 1 {
				return nil
			}
			return c.Claim.Resolve(ctx, r)
		}}},
		"refuses what is no resolution": {
			{resolve: resolveNothing},
			{resolve: func(ctx context.Context, c *brokenClaim, _ run.Resolution) error {
				return errors.Join(boom, c.Claim.Resolve(ctx, run.Resolution{Outcome: run.Failed}))
			}},
		},
		"a shutdown makes another run": {{resolve: func(ctx context.Context, c *brokenClaim, r run.Resolution) error {
			return c.Claim.Resolve(ctx, run.Resolution{Outcome: run.Exception, Reason: run.InternalError})
		}}},
		"an intermittent task makes another run": {{resolve: func(ctx context.Context, c *brokenClaim, r run.Resolution) error {
			return c.Claim.Resolve(ctx, run.Resolution{Outcome: run.Exception, Reason: run.InternalError})
		}}},
		"an expired claim makes another run":   {{claim: firstRunsOnly}},
		"claims are independent of each other": {{claim: sharedFate()}},
		"may be used concurrently":             {{claim: claimAgain()}, {check: fails}},
	}
	nothingLeft := func(*Memory, queue.Saved) (queue.Claim, error) { return nil, boom }
	defects["resumes what was claimed"] = []broken{
		{resume: nothingLeft},
		{resume: func(m *Memory, s queue.Saved) (queue.Claim, error) {
			s.Credentials = task.Credentials{}
			return m.Resume(s)
		}},
		{resume: func(m *Memory, s queue.Saved) (queue.Claim, error) {
			s.Definition = append(json.RawMessage(" "), s.Definition...)
			return m.Resume(s)
		}},
	}
	defects["a resumed claim is held"] = []broken{{resume: nothingLeft}, {check: fails}, {reclaim: nothing}, {resolve: resolveNothing}}
	defects["reclaiming a resumed claim that expired loses it"] = []broken{{resume: nothingLeft}, {reclaim: nothing}}
	defects["checking a resumed claim that expired loses it"] = []broken{{resume: nothingLeft}, {check: nothing}}
	defects["resolving a resumed claim that expired loses it"] = []broken{{resume: nothingLeft}, {resolve: resolveNothing}}
	defects["resumes no claim on what is no task"] = []broken{{resume: func(m *Memory, s queue.Saved) (queue.Claim, error) {
		return m.Resume(queue.Saved{Run: s.Run, Definition: json.RawMessage(`{}`)})
	}}}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if len(defects[c.name]) == 0 {
				t.Fatal("no defect that this check should catch")
			}
			for i, b := range defects[c.name] {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				b.Memory = &Memory{Poll: 50 * time.Millisecond}
				if err := c.check(ctx, t, &b); err == nil {
					t.Errorf("the check passed a queue with defect %d", i)
				}
				cancel()
			}
		})
		delete(defects, c.name)
	}
	for name := range defects {
		t.Errorf("there is no check %q", name)
	}
}

// broken is a queue, and its harness, with the defects that are not nil.
type broken struct {
	*Memory
	claim       func(context.Context, *Memory, int) ([]queue.Claim, error)
	definition  func(*task.Definition)
	credentials func(*brokenClaim) task.Credentials
	until       func(*brokenClaim) time.Time
	reclaim     func(context.Context, *brokenClaim) error
	check       func(context.Context, *brokenClaim) error
	resolve     func(context.Context, *brokenClaim, run.Resolution) error
	resume      func(*Memory, queue.Saved) (queue.Claim, error)
}

func (b *broken) Queue(testing.TB) queue.Queue                    { return b }
func (b *broken) AddTask(_ testing.TB, d task.Definition) task.ID { return b.Memory.AddTask(d) }
func (b *broken) Cancel(_ testing.TB, id task.ID)                 { b.Memory.Cancel(id) }
func (b *broken) Expire(_ testing.TB, id task.RunID)              { b.Memory.Expire(id) }
func (b *broken) Resolution(_ testing.TB, id task.RunID) run.Resolution {
	return b.Memory.Resolution(id)
}

func (b *broken) Claim(ctx context.Context, n int) ([]queue.Claim, error) {
	claim := b.claim
	if claim == nil {
		claim = func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) { return m.Claim(ctx, n) }
	}
	claims, err := claim(ctx, b.Memory, n)
	for i, c := range claims {
		claims[i] = &brokenClaim{Claim: c, b: b}
	}
	return claims, err
}

func (b *broken) Resume(s queue.Saved) (queue.Claim, error) {
	resume := b.resume
	if resume == nil {
		resume = (*Memory).Resume
	}
	c, err := resume(b.Memory, s)
	if err != nil {
		return nil, err
	}
	return &brokenClaim{Claim: c, b: b}, nil
}

type brokenClaim struct {
	queue.Claim
	b                  *broken
	reclaims, resolves int
}

func (c *brokenClaim) Task() task.Definition {
	d := c.Claim.Task()
	if c.b.definition != nil {
		c.b.definition(&d)
	}
	return d
}

func (c *brokenClaim) Credentials() task.Credentials {
	if c.b.credentials != nil {
		return c.b.credentials(c)
	}
	return c.Claim.Credentials()
}

func (c *brokenClaim) TakenUntil() time.Time {
	if c.b.until != nil {
		return c.b.until(c)
	}
	return c.Claim.TakenUntil()
}

func (c *brokenClaim) Reclaim(ctx context.Context) error {
	if c.b.credentials != nil {
		c.reclaims++
	}
	if c.b.reclaim != nil {
		return c.b.reclaim(ctx, c)
	}
	return c.Claim.Reclaim(ctx)
}

func (c *brokenClaim) Check(ctx context.Context) error {
	if c.b.check != nil {
		return c.b.check(ctx, c)
	}
	return c.Claim.Check(ctx)
}

func (c *brokenClaim) Resolve(ctx context.Context, r run.Resolution) error {
	if c.b.resolve != nil {
		return c.b.resolve(ctx, c, r)
	}
	return c.Claim.Resolve(ctx, r)
}

func claimNothing(context.Context, *Memory, int) ([]queue.Claim, error) { return nil, nil }

// claimAgain grants what was granted before once more.
func claimAgain() func(context.Context, *Memory, int) ([]queue.Claim, error) {
	granted := make(chan queue.Claim, 1)
	return func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
		select {
		case c := <-granted:
			return []queue.Claim{c}, nil
		default:
		}
		claims, err := m.Claim(ctx, n)
		if len(claims) > 0 {
			select {
			case granted <- claims[0]:
			default: // a concurrent call has left one already
			}
		}
		return claims, err
	}
}

// firstRunsOnly hands out no run of a task but the first.
func firstRunsOnly(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
	claims, err := m.Claim(ctx, n)
	return slices.DeleteFunc(claims, func(c queue.Claim) bool { return c.Run().Run > 0 }), err
}

// sharedFate cancels every task that it granted when one of them is canceled.
func sharedFate() func(context.Context, *Memory, int) ([]queue.Claim, error) {
	return func(ctx context.Context, m *Memory, n int) ([]queue.Claim, error) {
		claims, err := m.Claim(ctx, n)
		for i, c := range claims {
			claims[i] = &doomed{Claim: c, first: claims[0]}
		}
		return claims, err
	}
}

type doomed struct {
	queue.Claim
	first queue.Claim
}

func (d *doomed) Check(ctx context.Context) error { return d.first.Check(ctx) }
