package cachetest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/engine/enginetest"
)

// Memory is a store in memory, on an engine in memory. The zero Memory is empty
// and ready to use.
type Memory struct {
	Engine enginetest.Memory

	mu     sync.Mutex
	copies []*memoryCopy // in the order in which they were used
}

var (
	_ cache.Store = (*Memory)(nil)
	_ Harness     = (*Memory)(nil)
)

type memoryCopy struct {
	name     string
	volume   engine.Volume
	made     time.Time
	lease    *memoryLease // nil while it is free or orphaned
	orphaned bool
	purged   bool
}

type memoryLease struct {
	m     *Memory
	c     *memoryCopy
	fresh bool
}

// Store implements Harness.
func (m *Memory) Store(testing.TB) cache.Store { return m }

// Volumes implements Harness.
func (m *Memory) Volumes(testing.TB) engine.Volumes { return &m.Engine }

// Restart implements Harness.
func (m *Memory) Restart(tb testing.TB) cache.Store {
	tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for _, c := range m.copies {
		c.orphaned = c.orphaned || c.lease != nil
		c.lease = nil
		ids = append(ids, c.volume.ID())
	}
	if err := m.Engine.KeepVolumes(tb.Context(), ids); err != nil {
		tb.Error(err)
	}
	return m
}

// Acquire implements cache.Store.
func (m *Memory) Acquire(ctx context.Context, name string) (cache.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range slices.Backward(m.copies) {
		if c.name != name || c.lease != nil || c.orphaned {
			continue
		}
		if _, err := m.Engine.OpenVolume(ctx, c.volume.ID()); errors.Is(err, fs.ErrNotExist) {
			m.copies = append(m.copies[:i], m.copies[i+1:]...)
			continue
		} else if err != nil {
			return nil, err
		}
		c.lease = &memoryLease{m: m, c: c}
		return c.lease, nil
	}
	v, err := m.Engine.NewVolume(ctx)
	if err != nil {
		return nil, err
	}
	c := &memoryCopy{name: name, volume: v, made: time.Now()}
	c.lease = &memoryLease{m: m, c: c, fresh: true}
	m.copies = append(m.copies, c)
	return c.lease, nil
}

// Adopt implements cache.Store.
func (m *Memory) Adopt(_ context.Context, id string) (cache.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.copies {
		if c.orphaned && c.volume.ID() == id {
			c.orphaned, c.lease = false, &memoryLease{m: m, c: c}
			return c.lease, nil
		}
	}
	return nil, &fs.PathError{Op: "adopt", Path: id, Err: fs.ErrNotExist}
}

// Abandon implements cache.Store.
func (m *Memory) Abandon(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drop(func(c *memoryCopy) bool { return c.orphaned })
}

// Purge implements cache.Store.
func (m *Memory) Purge(name string, before time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.copies {
		c.purged = c.purged || c.name == name && c.made.Before(before)
	}
	_ = m.drop(func(c *memoryCopy) bool { return c.purged && c.lease == nil && !c.orphaned }) // memory is freed without fail
}

// drop removes copies.
func (m *Memory) drop(which func(*memoryCopy) bool) error {
	var errs []error
	var rest []*memoryCopy
	for _, c := range m.copies {
		if which(c) {
			errs = append(errs, c.volume.Close())
		} else {
			rest = append(rest, c)
		}
	}
	m.copies = rest
	return errors.Join(errs...)
}

// Volume implements cache.Lease.
func (l *memoryLease) Volume() engine.Volume { return l.c.volume }

// Fresh implements cache.Lease.
func (l *memoryLease) Fresh() bool { return l.fresh }

// Keep implements cache.Lease.
func (l *memoryLease) Keep() error { return l.release(false) }

// Discard implements cache.Lease.
func (l *memoryLease) Discard() error { return l.release(true) }

func (l *memoryLease) release(discard bool) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.c.lease != l {
		return nil
	}
	l.c.lease = nil
	if discard || l.c.purged {
		return l.m.drop(func(c *memoryCopy) bool { return c == l.c })
	}
	// It is the one that was used last.
	l.m.copies = append(slices.DeleteFunc(l.m.copies, func(c *memoryCopy) bool { return c == l.c }), l.c)
	return nil
}
