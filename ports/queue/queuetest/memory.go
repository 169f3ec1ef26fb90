package queuetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Memory is a queue in memory. The zero Memory is empty and ready to use; its
// fields may be set before it is used. It keeps the time of the time package,
// so that in a synctest bubble leases and polls take no time.
type Memory struct {
	Lease   time.Duration // how long a claim lasts; 20 minutes if zero
	Poll    time.Duration // how long Claim waits for a task; 20 seconds if zero
	Retries int           // runs that are added to a task when one is lost; 5 if zero

	mu      sync.Mutex
	tasks   []*memoryTask
	changed chan struct{} // closed at the next change; nil while nobody waits
	calls   []Call
	scripts map[Op]func(Call) Reply
	grants  int
}

var _ queue.Queue = (*Memory)(nil)

type memoryTask struct {
	id          task.ID
	definition  task.Definition
	retriesLeft int
	runs        []*memoryRun
}

type memoryRun struct {
	state      runState
	resolution run.Resolution // as the worker reported it
	resolved   time.Time
	takenUntil time.Time
}

type runState uint8

const (
	pending runState = iota
	running
	reported // by the worker
	ended    // by anybody else
)

// AddTask makes a task pending. What is zero in its definition gets a value
// that a queue would accept: a deadline in one hour, an expiry in one day.
func (m *Memory) AddTask(d task.Definition) task.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	// Shaped like a slug, for whoever checks.
	id := task.ID(fmt.Sprintf("%08dQACAAAAAAAAAAA", len(m.tasks)))
	retries := m.Retries
	if retries == 0 {
		retries = 5
	}
	m.tasks = append(m.tasks, &memoryTask{
		id:          id,
		definition:  completed(d, id),
		retriesLeft: retries,
		runs:        []*memoryRun{{}},
	})
	m.change()
	return id
}

// completed returns d with values for what is zero.
func completed(d task.Definition, id task.ID) task.Definition {
	if d.TaskQueueID == "" {
		d.TaskQueueID = "memory/queue"
	}
	if d.SchedulerID == "" {
		d.SchedulerID = "-"
	}
	if d.TaskGroupID == "" {
		d.TaskGroupID = id
	}
	if d.Dependencies == nil {
		d.Dependencies = []task.ID{}
	}
	if d.Scopes == nil {
		d.Scopes = task.Scopes{}
	}
	if d.Created.IsZero() {
		d.Created = time.Now()
	}
	if d.Deadline.IsZero() {
		d.Deadline = d.Created.Add(time.Hour)
	}
	if d.Expires.IsZero() {
		d.Expires = d.Created.Add(24 * time.Hour)
	}
	if d.Payload == nil {
		d.Payload = json.RawMessage(`{}`)
	}
	if d.Metadata == (task.Metadata{}) {
		d.Metadata = task.Metadata{Name: string(id), Description: "d", Owner: "owner@example.com", Source: "https://example.com"}
	}
	if d.Raw == nil {
		raw, err := json.Marshal(d)
		if err != nil {
			// Only a payload that is no JSON gets here, as no queue would let it.
			raw = nil
		}
		d.Raw = raw
	}
	return d
}

// Cancel cancels a task behind the worker's back.
func (m *Memory) Cancel(id task.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tasks {
		if last := t.last(); t.id == id && last.state <= running {
			last.state, last.resolved = ended, time.Now()
			m.change()
		}
	}
}

// Expire lets the claim on a run expire at once.
func (m *Memory) Expire(id task.RunID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, r := m.find(id); r != nil && r.state == running {
		r.takenUntil = time.Now()
		m.change()
	}
}

// Resolution returns how the worker resolved a run, which is the zero
// Resolution while it has not.
func (m *Memory) Resolution(id task.RunID) run.Resolution {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, r := m.find(id); r != nil {
		return r.resolution
	}
	return run.Resolution{}
}

// Resolved waits until the worker has resolved a run, and returns how. It
// returns the error of ctx if that is done before.
func (m *Memory) Resolved(ctx context.Context, id task.RunID) (run.Resolution, error) {
	for {
		m.mu.Lock()
		_, r := m.find(id)
		if r != nil && r.state == reported {
			defer m.mu.Unlock()
			return r.resolution, nil
		}
		changed := m.wake()
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return run.Resolution{}, fmt.Errorf("wait for the resolution of %v: %w", id, ctx.Err())
		}
	}
}

// TakesArtifacts reports whether the queue takes artifacts of a run: while it
// runs, and for 20 minutes after an exception.
func (m *Memory) TakesArtifacts(id task.RunID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	_, r := m.find(id)
	switch {
	case r == nil || r.state == pending:
		return false
	case r.state == running:
		return true
	case r.resolution.Outcome == run.Completed || r.resolution.Outcome == run.Failed:
		return false
	default:
		return time.Since(r.resolved) < 20*time.Minute
	}
}

// Claim implements queue.Queue.
func (m *Memory) Claim(ctx context.Context, n int) ([]queue.Claim, error) {
	reply := m.begin(Call{Op: Claim, N: n})
	if n < 1 || n > queue.MaxClaims {
		return nil, fmt.Errorf("claim %d runs: not from 1 to %d", n, queue.MaxClaims)
	}
	var claims []queue.Claim
	err := reply.play(ctx, func() error {
		var err error
		claims, err = m.poll(ctx, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// Resume implements queue.Queue.
func (m *Memory) Resume(s queue.Saved) (queue.Claim, error) {
	d, err := task.Parse(s.Definition)
	if err != nil {
		return nil, err
	}
	return &memoryClaim{m: m, id: s.Run, task: d, takenUntil: s.TakenUntil, credentials: s.Credentials}, nil
}

func (m *Memory) poll(ctx context.Context, n int) ([]queue.Claim, error) {
	poll := m.Poll
	if poll == 0 {
		poll = 20 * time.Second
	}
	end := time.Now().Add(poll)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m.mu.Lock()
		next := m.advance()
		claims := m.grant(n)
		changed := m.wake()
		m.mu.Unlock()
		if len(claims) > 0 || !time.Now().Before(end) {
			return claims, nil
		}
		until := end
		if !next.IsZero() && next.Before(end) {
			until = next
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// grant claims up to n pending runs.
func (m *Memory) grant(n int) []queue.Claim {
	var claims []queue.Claim
	for _, t := range m.tasks {
		r := t.last()
		if len(claims) == n || r.state != pending {
			continue
		}
		r.state, r.takenUntil = running, m.leaseEnd()
		claims = append(claims, &memoryClaim{
			m:           m,
			id:          task.RunID{Task: t.id, Run: len(t.runs) - 1},
			task:        t.definition,
			takenUntil:  r.takenUntil,
			credentials: m.credentials(t.id),
		})
	}
	return claims
}

// report resolves the run of a claim.
func (m *Memory) report(id task.RunID, res run.Resolution) error {
	if res.Outcome != run.Completed && res.Outcome != run.Failed && res.Outcome != run.Exception {
		return errors.New("no such resolution: " + res.String())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	t, r := m.find(id)
	if r == nil || r.state == ended || r.state == reported && r.resolution != res {
		return queue.ErrClaimLost
	}
	if r.state == reported {
		return nil
	}
	r.state, r.resolution, r.resolved = reported, res, time.Now()
	if res.Reason == run.WorkerShutdown || res.Reason == run.IntermittentTask {
		t.retry()
	}
	m.change()
	return nil
}

// held returns ErrClaimLost unless the run is claimed, and otherwise has
// extend, if not nil, change it.
func (m *Memory) held(id task.RunID, extend func(*memoryRun)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	_, r := m.find(id)
	if r == nil || r.state != running {
		return queue.ErrClaimLost
	}
	if extend != nil {
		extend(r)
	}
	return nil
}

// advance resolves what has run out of time, and returns when that will next
// happen, or the zero time.
func (m *Memory) advance() time.Time {
	now := time.Now()
	var next time.Time
	for _, t := range m.tasks {
		r := t.last()
		if r.state > running {
			continue
		}
		end := t.definition.Deadline
		if r.state == running && r.takenUntil.Before(end) {
			end = r.takenUntil
		}
		switch {
		case now.Before(end):
			if next.IsZero() || end.Before(next) {
				next = end
			}
		default:
			r.state, r.resolved = ended, now
			if end.Before(t.definition.Deadline) {
				t.retry()
			}
			m.change()
		}
	}
	return next
}

func (m *Memory) find(id task.RunID) (*memoryTask, *memoryRun) {
	for _, t := range m.tasks {
		if t.id == id.Task && id.Run >= 0 && id.Run < len(t.runs) {
			return t, t.runs[id.Run]
		}
	}
	return nil, nil
}

func (m *Memory) leaseEnd() time.Time {
	if m.Lease == 0 {
		return time.Now().Add(20 * time.Minute)
	}
	return time.Now().Add(m.Lease)
}

// credentials returns new ones at each call.
func (m *Memory) credentials(id task.ID) task.Credentials {
	m.grants++
	return task.Credentials{
		ClientID:    fmt.Sprintf("task-client/%s/%d", id, m.grants),
		AccessToken: fmt.Sprintf("token-%d", m.grants),
		Certificate: "{}",
	}
}

// change wakes whoever waits for a change.
func (m *Memory) change() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// wake returns a channel that is closed at the next change.
func (m *Memory) wake() <-chan struct{} {
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

func (t *memoryTask) last() *memoryRun { return t.runs[len(t.runs)-1] }

func (t *memoryTask) retry() {
	if t.retriesLeft > 0 {
		t.retriesLeft--
		t.runs = append(t.runs, &memoryRun{})
	}
}
