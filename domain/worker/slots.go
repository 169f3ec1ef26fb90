package worker

import (
	"context"
	"sync"
)

// slots counts the tasks that run and those that could. There is one goroutine
// that waits for free slots and takes them.
type slots struct {
	capacity int

	mu    sync.Mutex
	taken int
	freed chan struct{} // holds a token after a release
}

func newSlots(capacity int) *slots {
	return &slots{capacity: capacity, freed: make(chan struct{}, 1)}
}

// waitFree waits until a slot is free and returns how many are, or 0 if ctx is
// done before.
func (s *slots) waitFree(ctx context.Context) int {
	for {
		if free := s.capacity - s.count(); free > 0 {
			return free
		}
		select {
		case <-ctx.Done():
			return 0
		case <-s.freed:
		}
	}
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
