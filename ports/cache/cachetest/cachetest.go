// Package cachetest tests implementations of the cache port, and has a store in
// memory for the tests of everything else.
package cachetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Harness sets up the store under test. Its methods may fail the test.
type Harness interface {
	// Store returns the store.
	Store(tb testing.TB) cache.Store

	// Restart returns the store of a new process, after the former was killed.
	Restart(tb testing.TB) cache.Store

	// Volumes returns the engine that the volumes are of.
	Volumes(tb testing.TB) engine.Volumes
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(t.Context(), t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

type namedCheck struct {
	name  string
	check func(context.Context, testing.TB, Harness) error
}

func checks() []namedCheck {
	return []namedCheck{
		{"NewCacheIsFresh", newIsFresh},
		{"KeptCopyIsFoundAgain", keptIsFound},
		{"DiscardedCopyIsGone", discardedIsGone},
		{"LeasesAreExclusive", leasesAreExclusive},
		{"NamesAreApart", namesAreApart},
		{"FreshestFreeCopyComesFirst", freshestFirst},
		{"ReleasingTwiceDoesNothing", releasesOnce},
		{"PurgesFreeCopies", purgesFree},
		{"PurgesLeasedCopiesOnRelease", purgesLeased},
		{"PurgeSparesWhatIsNewerOrOfAnotherName", purgeSpares},
		{"KeepsCopiesAcrossRestarts", survivesRestart},
		{"AdoptsLeasesOfEarlierProcess", adopts},
		{"AbandonsLeasesThatNobodyAdopts", abandons},
		{"SurvivesLossOfVolume", survivesLoss},
	}
}

// acquire acquires a copy that must be fresh, or must not be.
func acquire(ctx context.Context, s cache.Store, name string, fresh bool) (cache.Lease, error) {
	l, err := s.Acquire(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("Acquire: %w", err)
	}
	if l.Fresh() != fresh {
		return nil, fmt.Errorf("a copy of %s is fresh: %t, want %t", name, l.Fresh(), fresh)
	}
	return l, nil
}

// kept returns the ID of a new copy of cache "a" that was kept.
func kept(ctx context.Context, s cache.Store) (string, error) {
	l, err := acquire(ctx, s, "a", true)
	if err != nil {
		return "", err
	}
	return l.Volume().ID(), l.Keep()
}

// exists returns an error if a volume is there, but should not be, or the other
// way around.
func exists(ctx context.Context, tb testing.TB, h Harness, id string, want bool) error {
	tb.Helper()
	_, err := h.Volumes(tb).OpenVolume(ctx, id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if got := err == nil; got != want {
		return fmt.Errorf("volume %s is there: %t, want %t", id, got, want)
	}
	return nil
}

func newIsFresh(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	return errors.Join(exists(ctx, tb, h, l.Volume().ID(), true), l.Keep())
}

func keptIsFound(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	id, err := kept(ctx, h.Store(tb))
	if err != nil {
		return err
	}
	for range 2 {
		l, err := acquire(ctx, h.Store(tb), "a", false)
		if err != nil {
			return err
		}
		if got := l.Volume().ID(); got != id {
			return fmt.Errorf("acquired volume %s, want %s, which was kept", got, id)
		}
		if err := l.Keep(); err != nil {
			return err
		}
	}
	return nil
}

func discardedIsGone(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	if err := l.Discard(); err != nil {
		return err
	}
	if err := exists(ctx, tb, h, l.Volume().ID(), false); err != nil {
		return err
	}
	_, err = acquire(ctx, h.Store(tb), "a", true)
	return err
}

func leasesAreExclusive(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if _, err := kept(ctx, h.Store(tb)); err != nil {
		return err
	}
	first, err := acquire(ctx, h.Store(tb), "a", false)
	if err != nil {
		return err
	}
	second, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	if first.Volume().ID() == second.Volume().ID() {
		return errors.New("one copy was leased twice")
	}
	return nil
}

func namesAreApart(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if _, err := kept(ctx, h.Store(tb)); err != nil {
		return err
	}
	for _, name := range []string{"A", "a/b", "../a", "a ", "ä"} {
		if _, err := acquire(ctx, h.Store(tb), name, true); err != nil {
			return err
		}
	}
	return nil
}

func freshestFirst(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	s := h.Store(tb)
	var leases []cache.Lease
	for range 3 {
		l, err := acquire(ctx, s, "a", true)
		if err != nil {
			return err
		}
		leases = append(leases, l)
	}
	// The second is used last, and the first before it.
	for _, i := range []int{2, 0, 1} {
		if err := leases[i].Keep(); err != nil {
			return err
		}
	}
	for _, i := range []int{1, 0, 2} {
		l, err := acquire(ctx, s, "a", false)
		if err != nil {
			return err
		}
		if l.Volume().ID() != leases[i].Volume().ID() {
			return errors.New("a copy was leased before another one that was used after it")
		}
	}
	return nil
}

func releasesOnce(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	if err := l.Keep(); err != nil {
		return err
	}
	again, err := acquire(ctx, h.Store(tb), "a", false)
	if err != nil {
		return err
	}
	// The first lease has no say any more.
	if err := errors.Join(l.Discard(), l.Keep()); err != nil {
		return err
	}
	if err := exists(ctx, tb, h, again.Volume().ID(), true); err != nil {
		return err
	}
	_, err = acquire(ctx, h.Store(tb), "a", true)
	return err
}

func purgesFree(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	id, err := kept(ctx, h.Store(tb))
	if err != nil {
		return err
	}
	h.Store(tb).Purge("a", time.Now().Add(time.Minute))
	if _, err := acquire(ctx, h.Store(tb), "a", true); err != nil {
		return err
	}
	return exists(ctx, tb, h, id, false)
}

func purgesLeased(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	h.Store(tb).Purge("a", time.Now().Add(time.Minute))
	if err := exists(ctx, tb, h, l.Volume().ID(), true); err != nil {
		return err
	}
	if err := l.Keep(); err != nil {
		return err
	}
	if err := exists(ctx, tb, h, l.Volume().ID(), false); err != nil {
		return err
	}
	_, err = acquire(ctx, h.Store(tb), "a", true)
	return err
}

func purgeSpares(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if _, err := kept(ctx, h.Store(tb)); err != nil {
		return err
	}
	h.Store(tb).Purge("b", time.Now().Add(time.Minute))
	h.Store(tb).Purge("a", time.Now().Add(-time.Minute))
	_, err := acquire(ctx, h.Store(tb), "a", false)
	return err
}

func survivesRestart(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	id, err := kept(ctx, h.Store(tb))
	if err != nil {
		return err
	}
	// A volume of which no store knows was made by a process that was killed.
	stray, err := h.Volumes(tb).NewVolume(ctx)
	if err != nil {
		return err
	}
	l, err := acquire(ctx, h.Restart(tb), "a", false)
	if err != nil {
		return err
	}
	if l.Volume().ID() != id {
		return errors.New("the copy that was kept is another one after a restart")
	}
	return exists(ctx, tb, h, stray.ID(), false)
}

func adopts(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	s := h.Restart(tb)
	if _, err := acquire(ctx, s, "a", true); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	adopted, err := s.Adopt(ctx, l.Volume().ID())
	if err != nil {
		return fmt.Errorf("Adopt: %w", err)
	}
	if _, err := s.Adopt(ctx, l.Volume().ID()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopting a lease twice returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	if err := s.Abandon(ctx); err != nil {
		return fmt.Errorf("Abandon: %w", err)
	}
	if err := exists(ctx, tb, h, l.Volume().ID(), true); err != nil {
		return err
	}
	if err := adopted.Keep(); err != nil {
		return err
	}
	_, err = acquire(ctx, s, "a", false)
	return err
}

func abandons(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	l, err := acquire(ctx, h.Store(tb), "a", true)
	if err != nil {
		return err
	}
	s := h.Restart(tb)
	if err := s.Abandon(ctx); err != nil {
		return fmt.Errorf("Abandon: %w", err)
	}
	if err := exists(ctx, tb, h, l.Volume().ID(), false); err != nil {
		return err
	}
	if _, err := s.Adopt(ctx, l.Volume().ID()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopting an abandoned lease returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	_, err = acquire(ctx, s, "a", true)
	return err
}

func survivesLoss(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	id, err := kept(ctx, h.Store(tb))
	if err != nil {
		return err
	}
	v, err := h.Volumes(tb).OpenVolume(ctx, id)
	if err != nil {
		return err
	}
	if err := v.Close(); err != nil {
		return err
	}
	_, err = acquire(ctx, h.Store(tb), "a", true)
	return err
}
