// Package schedule tells when points in time have come.
package schedule

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Schedule holds one point in time for each key.
type Schedule[K comparable] struct {
	mu      sync.Mutex
	entries map[K]*entry[K]
	queue   queue[K]
	changed chan struct{}
}

// New returns an empty schedule.
func New[K comparable]() *Schedule[K] {
	return &Schedule[K]{entries: map[K]*entry[K]{}, changed: make(chan struct{}, 1)}
}

// Set makes key due at the given time, and at no other.
func (s *Schedule[K]) Set(key K, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[key]; ok {
		e.at = at
		heap.Fix(&s.queue, e.index)
	} else {
		e := &entry[K]{key: key, at: at}
		s.entries[key] = e
		heap.Push(&s.queue, e)
	}
	if s.queue[0].key == key {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// Clear forgets key.
func (s *Schedule[K]) Clear(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[key]; ok {
		heap.Remove(&s.queue, e.index)
		delete(s.entries, key)
	}
}

// Run calls due once for each key when its time has come, one after another,
// until ctx is done. A key is forgotten before due is called, which may set it
// again.
func (s *Schedule[K]) Run(ctx context.Context, due func(K)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-timer.C:
		}
		for ctx.Err() == nil {
			key, wait, ok := s.next()
			if !ok {
				timer.Reset(wait)
				break
			}
			due(key)
		}
	}
}

// next takes a key that is due, or says how long to wait for one.
func (s *Schedule[K]) next() (key K, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return key, time.Hour, false
	}
	first := s.queue[0]
	if wait := time.Until(first.at); wait > 0 {
		return key, wait, false
	}
	heap.Pop(&s.queue)
	delete(s.entries, first.key)
	return first.key, 0, true
}

type entry[K comparable] struct {
	key   K
	at    time.Time
	index int
}

// queue is a heap of entries, the earliest first.
type queue[K comparable] []*entry[K]

func (q queue[K]) Len() int           { return len(q) }
func (q queue[K]) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q queue[K]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue[K]) Push(x any) {
	e := x.(*entry[K])
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue[K]) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
