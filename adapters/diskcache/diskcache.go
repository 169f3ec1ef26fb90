// Package diskcache keeps a table of caches in a file, and the caches themselves
// in volumes of the engine.
package diskcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Config says where the table is.
type Config struct {
	File      string // absolute; its directory is made
	Temporary bool   // whether all caches go when the store is closed
}

// Store implements [cache.Store].
type Store struct {
	file    string
	volumes engine.Volumes
	log     *slog.Logger

	mu     sync.Mutex
	copies []*entry
	clock  int64 // grows with each use, unlike the time of day
}

var _ cache.Store = (*Store)(nil)

// entry is a copy of a cache, as the table has it.
type entry struct {
	Name   string    `json:"name"`
	Volume string    `json:"volume"` // ID
	Made   time.Time `json:"made"`
	Used   time.Time `json:"used"`            // when it was last released
	Turn   int64     `json:"turn"`            // orders uses, the last one highest
	Leased bool      `json:"leased"`          // now, or when the process ended
	Purged bool      `json:"purged,omitzero"` // is discarded when it is released

	lease *lease // nil if an earlier process had it
}

// New reads the table, and frees all volumes that are not in it. A table that
// cannot be read costs the caches, but not the start. The function closes the
// store, before volumes is closed.
func New(ctx context.Context, c Config, volumes engine.Volumes, log *slog.Logger) (*Store, func(), error) {
	s := &Store{file: c.File, volumes: volumes, log: log}
	entries, err := readTable(c.File)
	if err != nil {
		log.WarnContext(ctx, "caches are lost: their table cannot be read", slog.String("file", c.File), slog.Any("error", err))
	}
	s.copies = entries
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Volume)
		s.clock = max(s.clock, e.Turn)
	}
	if err := volumes.KeepVolumes(ctx, ids); err != nil {
		return nil, nil, fmt.Errorf("free volumes of no cache: %w", err)
	}
	if err := s.save(); err != nil {
		return nil, nil, err
	}
	return s, func() {
		if !c.Temporary {
			return
		}
		if err := s.discard(context.WithoutCancel(ctx), func(*entry) bool { return true }); err != nil {
			log.WarnContext(ctx, "remove temporary caches", slog.Any("error", err))
		}
	}, nil
}

// Acquire implements cache.Store.
func (s *Store) Acquire(ctx context.Context, name string) (cache.Lease, error) {
	for {
		e, err := s.take(name)
		if err != nil {
			return nil, err
		}
		if e == nil {
			return s.make(ctx, name)
		}
		v, err := s.volumes.OpenVolume(ctx, e.Volume)
		if errors.Is(err, fs.ErrNotExist) {
			s.log.WarnContext(ctx, "a cache is lost: its volume is gone", slog.String("cache", name), slog.String("volume", e.Volume))
			if err := s.forget(e); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open cache %s: %w", name, err), e.lease.release(false))
		}
		e.lease.volume = v
		return e.lease, nil
	}
}

// take leases the copy that was used last among those that are free, or returns
// nil.
func (s *Store) take(name string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *entry
	for _, e := range s.copies {
		if e.Name == name && !e.Leased && (best == nil || e.Turn > best.Turn) {
			best = e
		}
	}
	if best == nil {
		return nil, nil
	}
	best.Leased, best.lease = true, &lease{s: s, e: best}
	if err := s.save(); err != nil {
		best.Leased, best.lease = false, nil
		return nil, err
	}
	return best, nil
}

// make leases a new copy.
func (s *Store) make(ctx context.Context, name string) (cache.Lease, error) {
	v, err := s.volumes.NewVolume(ctx)
	if err != nil {
		return nil, fmt.Errorf("make cache %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &entry{Name: name, Volume: v.ID(), Made: time.Now(), Used: time.Now(), Leased: true}
	e.lease = &lease{s: s, e: e, volume: v, fresh: true}
	s.copies = append(s.copies, e)
	if err := s.save(); err != nil {
		s.remove(e)
		return nil, errors.Join(err, v.Close())
	}
	return e.lease, nil
}

// Adopt implements cache.Store.
func (s *Store) Adopt(ctx context.Context, id string) (cache.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.copies, func(e *entry) bool { return e.Volume == id && e.orphaned() })
	if i < 0 {
		return nil, &fs.PathError{Op: "adopt lease of", Path: id, Err: fs.ErrNotExist}
	}
	v, err := s.volumes.OpenVolume(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", s.copies[i].Name, err)
	}
	e := s.copies[i]
	e.lease = &lease{s: s, e: e, volume: v}
	return e.lease, nil
}

// Abandon implements cache.Store.
func (s *Store) Abandon(ctx context.Context) error {
	return s.discard(ctx, (*entry).orphaned)
}

// Purge implements cache.Store.
func (s *Store) Purge(name string, before time.Time) {
	s.mu.Lock()
	for _, e := range s.copies {
		if e.Name == name && e.Made.Before(before) {
			e.Purged = true
		}
	}
	s.mu.Unlock()
	ctx := context.Background() // the copies are out of reach now, whatever becomes of their volumes
	if err := s.discard(ctx, func(e *entry) bool { return e.Purged && !e.Leased }); err != nil {
		s.log.Warn("purge cache", slog.String("cache", name), slog.Any("error", err))
	}
}

// discard removes copies, and frees their volumes.
func (s *Store) discard(ctx context.Context, which func(*entry) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	var rest []*entry
	for _, e := range s.copies {
		if !which(e) {
			rest = append(rest, e)
			continue
		}
		v, err := s.volumes.OpenVolume(ctx, e.Volume)
		if err == nil {
			err = v.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("free cache %s: %w", e.Name, err))
		}
	}
	if len(rest) < len(s.copies) {
		s.copies = rest
		errs = append(errs, s.save())
	}
	return errors.Join(errs...)
}

// forget removes a copy whose volume is gone.
func (s *Store) forget(e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e)
	return s.save()
}

func (s *Store) remove(e *entry) {
	s.copies = slices.DeleteFunc(s.copies, func(other *entry) bool { return other == e })
}

// orphaned reports whether the copy was leased by an earlier process.
func (e *entry) orphaned() bool { return e.Leased && e.lease == nil }

// save writes the table, in the order of use.
func (s *Store) save() error {
	slices.SortStableFunc(s.copies, func(a, b *entry) int { return cmp.Compare(a.Turn, b.Turn) })
	if err := writeTable(s.file, s.copies); err != nil {
		return fmt.Errorf("write table of caches: %w", err)
	}
	return nil
}

// lease implements [cache.Lease].
type lease struct {
	s      *Store
	e      *entry
	volume engine.Volume
	fresh  bool
}

// Volume implements cache.Lease.
func (l *lease) Volume() engine.Volume { return l.volume }

// Fresh implements cache.Lease.
func (l *lease) Fresh() bool { return l.fresh }

// Keep implements cache.Lease.
func (l *lease) Keep() error { return l.release(false) }

// Discard implements cache.Lease.
func (l *lease) Discard() error { return l.release(true) }

func (l *lease) release(discard bool) error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.e.lease != l {
		return nil
	}
	l.e.lease, l.e.Leased, l.e.Used = nil, false, time.Now()
	l.s.clock++
	l.e.Turn = l.s.clock
	if !discard && !l.e.Purged {
		return l.s.save()
	}
	l.s.remove(l.e)
	err := l.s.save()
	if closeErr := l.volume.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("free cache %s: %w", l.e.Name, closeErr))
	}
	return err
}
