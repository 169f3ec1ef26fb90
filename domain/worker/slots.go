package worker

import (
	"context"
	"sync"
)

// slots counts the tasks that run and those that could. There is one goroutine
// that waits for free slots and takes them.
type slots struct {
	capacity int
	total    int // how many may be taken in all; any number if zero

	mu    sync.Mutex
	taken int
	ever  int           // taken in all
	freed chan struct{} // holds a token after a release
}

func newSlots(capacity, total int) *slots {
	return &slots{capacity: capacity, total: total, freed: make(chan struct{}, 1)}
}

// waitFree waits until a slot is free and returns how many are, or 0 if ctx is
// done before, or if all that may be are taken.
func (s *slots) waitFree(ctx context.Context) int {
	for !s.spent() {
		if free := s.free(); free > 0 {
			return free
		}
		select {
		case <-ctx.Done():
			return 0
		case <-s.freed:
		}
	}
	return 0
}

// free returns how many slots can be taken now.
func (s *slots) free() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := s.capacity - s.taken
	if s.total > 0 {
		free = min(free, s.total-s.ever)
	}
	return free
}

// spent reports whether all slots were taken that may ever be.
func (s *slots) spent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total > 0 && s.ever >= s.total
}

// waitIdle waits until no slot is taken, and reports whether that was before ctx
// was done.
func (s *slots) waitIdle(ctx context.Context) bool {
	for s.count() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-s.freed:
		}
	}
	return true
}

func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// take takes a slot, even beyond the capacity: a queue that grants more than it
// was asked for must not make the worker drop a claim.
func (s *slots) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	s.ever++
}

func (s *slots) release() {
	s.mu.Lock()
	s.taken--
	s.mu.Unlock()
	select {
	case s.freed <- struct{}{}:
	default:
	}
}
