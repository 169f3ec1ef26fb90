package artifacttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

// Op is a method of the artifact port.
type Op string

// The methods of a store.
const (
	Upload   Op = "Upload"
	Redirect Op = "Redirect"
	Link     Op = "Link"
	Explain  Op = "Explain"
)

// Call is one call of a method of a store.
type Call struct {
	Op   Op
	Time time.Time // when it was made
	Run  task.RunID
	Meta artifact.Meta
}

// Artifact is an artifact as its consumers see it.
type Artifact struct {
	Op          Op // the method that made it
	ContentType string
	Expires     time.Time

	Encoding string // of an upload, as in the HTTP header
	Body     []byte // of an upload, as it is transferred
	URL      string // of a redirect
	Target   string // of a link

	Absence artifact.Absence // of an explanation
	Detail  string           // of an explanation
}

// Memory opens stores in memory. Its Queue, if set before use, tells which runs
// take artifacts; without one, every run does. The zero Memory is ready to use.
type Memory struct {
	Queue *queuetest.Memory

	mu        sync.Mutex
	artifacts map[task.RunID]map[string]Artifact
	calls     []Call
	script    func(Call) error
	broken    int
}

var _ artifact.Opener = (*Memory)(nil)

// On has f decide, before anything happens, which calls fail: those for which
// it returns an error, which is what they return. f is not called concurrently
// and must not use m. A nil f restores the ordinary.
func (m *Memory) On(f func(Call) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = f
}

// Break has the next n transfers of content end half way. Uploads try again.
func (m *Memory) Break(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = n
}

// Calls returns the calls that were made of ops, or of all methods, in order.
func (m *Memory) Calls(ops ...Op) []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	var calls []Call
	for _, c := range m.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			calls = append(calls, c)
		}
	}
	return calls
}

// Artifact returns an artifact of a run, and whether there is one of that name.
func (m *Memory) Artifact(id task.RunID, name string) (Artifact, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.artifacts[id][name]
	return a, ok
}

// Names returns the names of the artifacts of a run, sorted.
func (m *Memory) Names(id task.RunID) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.artifacts[id]))
	for name := range m.artifacts[id] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Open implements artifact.Opener.
func (m *Memory) Open(c queue.Claim) artifact.Store { return &memoryStore{m, c} }

type memoryStore struct {
	m     *Memory
	claim queue.Claim
}

// Upload implements artifact.Store.
func (s *memoryStore) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if err := s.begin(ctx, Upload, m); err != nil {
		return err
	}
	made := Artifact{Op: Upload, ContentType: m.ContentType, Expires: m.Expires, Encoding: c.Encoding}
	// As at a real queue, what is refused is refused before the transfer.
	if err := s.allowed(m, made); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		whole, err := s.m.transfer(c, &made)
		if err != nil {
			return err
		}
		if whole {
			return s.put(m, made)
		}
	}
}

// Redirect implements artifact.Store.
func (s *memoryStore) Redirect(ctx context.Context, m artifact.Meta, url string) error {
	if err := s.begin(ctx, Redirect, m); err != nil {
		return err
	}
	return s.put(m, Artifact{Op: Redirect, ContentType: m.ContentType, Expires: m.Expires, URL: url})
}

// Link implements artifact.Store.
func (s *memoryStore) Link(ctx context.Context, m artifact.Meta, target string) error {
	if err := s.begin(ctx, Link, m); err != nil {
		return err
	}
	return s.put(m, Artifact{Op: Link, ContentType: m.ContentType, Expires: m.Expires, Target: target})
}

// Explain implements artifact.Store.
func (s *memoryStore) Explain(ctx context.Context, m artifact.Meta, why artifact.Absence, detail string) error {
	if err := s.begin(ctx, Explain, m); err != nil {
		return err
	}
	return s.put(m, Artifact{Op: Explain, Expires: m.Expires, Absence: why, Detail: detail})
}

// begin records a call and returns the error it is scripted to end with.
func (s *memoryStore) begin(ctx context.Context, op Op, meta artifact.Meta) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	c := Call{Op: op, Time: time.Now(), Run: s.claim.Run(), Meta: meta}
	s.m.calls = append(s.m.calls, c)
	if s.m.script == nil {
		return nil
	}
	return s.m.script(c)
}

// transfer reads the content into a, and reports whether it arrived whole.
func (m *Memory) transfer(c artifact.Content, a *Artifact) (whole bool, err error) {
	r, err := c.Open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	m.mu.Lock()
	breaks := m.broken > 0
	if breaks {
		m.broken--
	}
	m.mu.Unlock()
	if breaks {
		_, err := io.CopyN(io.Discard, r, c.Size/2)
		return false, err
	}
	a.Body, err = io.ReadAll(r)
	if err == nil && int64(len(a.Body)) != c.Size {
		return false, fmt.Errorf("content of %d bytes yields %d", c.Size, len(a.Body))
	}
	return err == nil, err
}

// put stores a, if the queue would.
func (s *memoryStore) put(m artifact.Meta, a Artifact) error {
	if err := s.allowed(m, a); err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.artifacts == nil {
		s.m.artifacts = make(map[task.RunID]map[string]Artifact)
	}
	of := s.m.artifacts[s.claim.Run()]
	if of == nil {
		of = make(map[string]Artifact)
		s.m.artifacts[s.claim.Run()] = of
	}
	of[m.Name] = a
	return nil
}

// allowed applies the queue's rules for new and for replaced artifacts.
func (s *memoryStore) allowed(m artifact.Meta, a Artifact) error {
	id := s.claim.Run()
	if s.m.Queue != nil && !s.m.Queue.TakesArtifacts(id) {
		return queue.ErrClaimLost
	}
	if expires := s.claim.Task().Expires; m.Expires.After(expires) {
		return fault.Malformedf("artifact %q expires after the task, at %v", m.Name, expires)
	}
	old, exists := s.m.Artifact(id, m.Name)
	if !exists {
		return nil
	}
	same := old.Op == a.Op && (a.Op == Upload || a.Op == Redirect || a.Target == old.Target && a.Absence == old.Absence && a.Detail == old.Detail)
	becomesLink := old.Op == Redirect && a.Op == Link
	keepsType := a.Op == Link || strings.EqualFold(old.ContentType, a.ContentType)
	if (same || becomesLink) && keepsType && !a.Expires.Before(old.Expires) {
		return nil
	}
	return fault.Malformedf("artifact %q already exists with different properties", m.Name)
}
