package cachetest

import (
	"context"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	Test(t, func(testing.TB) Harness { return new(Memory) })
}

// broken is a store with one defect.
type broken struct {
	*Memory
	acquire func(*Memory, context.Context, string) (cache.Lease, error)
	lease   func(cache.Lease) cache.Lease
	adopt   func(*Memory, context.Context, string) (cache.Lease, error)
	abandon func() error
	purge   func(*Memory, string, time.Time)
	restart func(*Memory)
	keepAll bool // at a restart, stray volumes too
}

func (b *broken) Store(testing.TB) cache.Store { return b }

func (b *broken) Restart(tb testing.TB) cache.Store {
	tb.Helper()
	if b.keepAll {
		for _, c := range b.copies {
			c.orphaned, c.lease = c.lease != nil, nil
		}
		return b
	}
	b.Memory.Restart(tb)
	if b.restart != nil {
		b.restart(b.Memory)
	}
	return b
}

func (b *broken) Acquire(ctx context.Context, name string) (cache.Lease, error) {
	acquire := (*Memory).Acquire
	if b.acquire != nil {
		acquire = b.acquire
	}
	l, err := acquire(b.Memory, ctx, name)
	if err == nil && b.lease != nil {
		l = b.lease(l)
	}
	return l, err
}

func (b *broken) Adopt(ctx context.Context, id string) (cache.Lease, error) {
	if b.adopt != nil {
		return b.adopt(b.Memory, ctx, id)
	}
	return b.Memory.Adopt(ctx, id)
}

func (b *broken) Abandon(ctx context.Context) error {
	if b.abandon != nil {
		return b.abandon()
	}
	return b.Memory.Abandon(ctx)
}

func (b *broken) Purge(name string, before time.Time) {
	if b.purge != nil {
		b.purge(b.Memory, name, before)
		return
	}
	b.Memory.Purge(name, before)
}

// lying is a lease that says or does something else.
type lying struct {
	cache.Lease
	fresh         func(bool) bool
	keep, discard func(cache.Lease) error
}

func (l lying) Fresh() bool {
	if l.fresh != nil {
		return l.fresh(l.Lease.Fresh())
	}
	return l.Lease.Fresh()
}

func (l lying) Keep() error {
	if l.keep != nil {
		return l.keep(l.Lease)
	}
	return l.Lease.Keep()
}

func (l lying) Discard() error {
	if l.discard != nil {
		return l.discard(l.Lease)
	}
	return l.Lease.Discard()
}

// always leases a new copy.
func always(m *Memory, ctx context.Context, _ string) (cache.Lease, error) { //nolint:revive // as a method expression
	return m.Acquire(ctx, time.Now().String())
}

func lie(l lying) func(*broken) {
	return func(b *broken) {
		b.lease = func(honest cache.Lease) cache.Lease {
			l.Lease = honest
			return l
		}
	}
}

// Each check must fail on a store that breaks its law.
func TestChecksCatchDefects(t *testing.T) {
	stale := lie(lying{fresh: func(bool) bool { return false }})
	forgetful := func(b *broken) { b.acquire = always }
	shared := func(b *broken) {
		b.acquire = func(m *Memory, ctx context.Context, name string) (cache.Lease, error) {
			for _, c := range m.copies {
				if c.name == name {
					return &memoryLease{m: m, c: c}, nil
				}
			}
			return m.Acquire(ctx, name)
		}
	}
	hoarding := lie(lying{discard: cache.Lease.Keep})
	unpurged := func(b *broken) { b.purge = func(*Memory, string, time.Time) {} }
	defects := map[string][]func(*broken){
		"NewCacheIsFresh":      {stale},
		"KeptCopyIsFoundAgain": {forgetful, lie(lying{keep: cache.Lease.Discard})},
		"DiscardedCopyIsGone":  {hoarding},
		"LeasesAreExclusive":   {shared},
		"NamesAreApart": {func(b *broken) {
			b.acquire = func(m *Memory, ctx context.Context, _ string) (cache.Lease, error) { return m.Acquire(ctx, "a") }
		}},
		"FreshestFreeCopyComesFirst": {func(b *broken) {
			b.acquire = func(m *Memory, ctx context.Context, name string) (cache.Lease, error) {
				if n := len(m.copies); n > 1 && m.copies[0].lease == nil {
					m.copies[0], m.copies[n-1] = m.copies[n-1], m.copies[0]
				}
				return m.Acquire(ctx, name)
			}
		}},
		"ReleasingTwiceDoesNothing": {lie(lying{discard: func(l cache.Lease) error {
			c := l.(*memoryLease).c
			c.lease = l.(*memoryLease)
			return l.Discard()
		}})},
		"PurgesFreeCopies": {unpurged},
		"PurgesLeasedCopiesOnRelease": {unpurged, func(b *broken) {
			b.purge = func(m *Memory, _ string, _ time.Time) { _ = m.drop(func(*memoryCopy) bool { return true }) }
		}},
		"PurgeSparesWhatIsNewerOrOfAnotherName": {
			func(b *broken) { b.purge = func(m *Memory, _ string, t time.Time) { m.Purge("a", t) } },
			func(b *broken) {
				b.purge = func(m *Memory, n string, _ time.Time) { m.Purge(n, time.Now().Add(time.Hour)) }
			},
		},
		"KeepsCopiesAcrossRestarts": {
			func(b *broken) { b.restart = func(m *Memory) { m.copies = nil } },
			func(b *broken) { b.keepAll = true },
		},
		"AdoptsLeasesOfEarlierProcess": {
			func(b *broken) {
				b.restart = func(m *Memory) {
					for _, c := range m.copies {
						c.orphaned = false
					}
				}
			},
			func(b *broken) {
				b.adopt = func(*Memory, context.Context, string) (cache.Lease, error) { return nil, io.EOF }
			},
			func(b *broken) {
				b.adopt = func(m *Memory, ctx context.Context, id string) (cache.Lease, error) {
					l, err := m.Adopt(ctx, id)
					if err != nil {
						for _, c := range m.copies {
							if c.volume.ID() == id {
								return c.lease, nil
							}
						}
					}
					return l, err
				}
			},
		},
		"AbandonsLeasesThatNobodyAdopts": {
			func(b *broken) { b.abandon = func() error { return nil } },
		},
		"SurvivesLossOfVolume": {func(b *broken) {
			b.acquire = func(m *Memory, ctx context.Context, name string) (cache.Lease, error) {
				for _, c := range m.copies {
					if _, err := m.Engine.OpenVolume(ctx, c.volume.ID()); err != nil {
						return nil, err
					}
				}
				return m.Acquire(ctx, name)
			}
		}},
	}
	for _, c := range checks() {
		if len(defects[c.name]) == 0 {
			t.Errorf("%s: no defect that this check should catch", c.name)
		}
		for i, defect := range defects[c.name] {
			t.Run(c.name, func(t *testing.T) {
				b := &broken{Memory: new(Memory)}
				defect(b)
				if err := c.check(t.Context(), t, b); err == nil {
					t.Errorf("the check passed a store with defect %d", i)
				}
			})
		}
	}
}
