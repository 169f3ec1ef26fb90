package queue

import (
	"container/heap"
	"container/list"
	"context"
	"sync"
	"time"
)

// hint says that a run was pending. The database alone knows whether it still
// is: whoever takes a hint looks there.
type hint struct {
	taskID    string
	run       int
	rank      int       // of its priority, 0 for the highest
	scheduled time.Time // older ones go first
	index     int
}

// pending holds the hints of all task queues.
type pending struct {
	mu     sync.Mutex
	queues map[string]*line
}

// line is one task queue: the hints, and the workers that wait for some. Hints
// and waiters are never both left over.
type line struct {
	hints   hints
	byTask  map[string]*hint
	waiters *list.List // of chan struct{}, each closed to wake its waiter
}

func newPending() *pending { return &pending{queues: map[string]*line{}} }

func (p *pending) line(taskQueueID string) *line {
	l, ok := p.queues[taskQueueID]
	if !ok {
		l = &line{byTask: map[string]*hint{}, waiters: list.New()}
		p.queues[taskQueueID] = l
	}
	return l
}

// push adds a hint, in place of any other of the same task.
func (p *pending) push(taskQueueID string, h *hint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(taskQueueID)
	l.remove(h.taskID)
	heap.Push(&l.hints, h)
	l.byTask[h.taskID] = h
	l.wake()
}

// remove drops the hint of a task that is not pending any more.
func (p *pending) remove(taskQueueID, taskID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.queues[taskQueueID]; ok {
		l.remove(taskID)
	}
}

// count returns how many tasks are pending.
func (p *pending) count(taskQueueID string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.queues[taskQueueID]; ok {
		return len(l.hints)
	}
	return 0
}

// take removes and returns up to n hints. It waits until there is one, or
// returns none when ctx is done first.
func (p *pending) take(ctx context.Context, taskQueueID string, n int) []*hint {
	for ctx.Err() == nil {
		taken, wake, leave := p.tryTake(taskQueueID, n)
		if len(taken) > 0 {
			return taken
		}
		select {
		case <-wake:
		case <-ctx.Done():
			leave()
		}
	}
	return nil
}

// tryTake takes up to n hints. If there are none, the caller joins those who
// wait: wake is closed when there may be some, and leave gives up.
func (p *pending) tryTake(taskQueueID string, n int) (taken []*hint, wake <-chan struct{}, leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(taskQueueID)
	for len(taken) < n && len(l.hints) > 0 {
		h := heap.Pop(&l.hints).(*hint)
		delete(l.byTask, h.taskID)
		taken = append(taken, h)
	}
	if len(taken) > 0 {
		l.wake()
		return taken, nil, nil
	}
	woken := make(chan struct{})
	waiter := l.waiters.PushBack(woken)
	return nil, woken, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		select {
		case <-woken:
			// Woken and gone: whoever waits next must not miss the hint.
			l.wake()
		default:
			l.waiters.Remove(waiter)
		}
	}
}

// wake wakes the first waiter if there is a hint for it.
func (l *line) wake() {
	if first := l.waiters.Front(); first != nil && len(l.hints) > 0 {
		close(l.waiters.Remove(first).(chan struct{}))
	}
}

func (l *line) remove(taskID string) {
	if h, ok := l.byTask[taskID]; ok {
		heap.Remove(&l.hints, h.index)
		delete(l.byTask, taskID)
	}
}

// hints is a heap, the one to run next first.
type hints []*hint

func (h hints) Len() int { return len(h) }

func (h hints) Less(i, j int) bool {
	if h[i].rank != h[j].rank {
		return h[i].rank < h[j].rank
	}
	return h[i].scheduled.Before(h[j].scheduled)
}

func (h hints) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *hints) Push(x any) {
	one := x.(*hint)
	one.index = len(*h)
	*h = append(*h, one)
}

func (h *hints) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
