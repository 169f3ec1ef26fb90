package interrupttest

import (
	"context"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

var _ interrupt.Source = (*Memory)(nil)

// Memory is a source of whatever notices a test announces. The zero value is
// ready.
type Memory struct {
	mu        sync.Mutex
	announced []interrupt.Notice
	more      chan struct{} // closed by the next Announce; nil if nobody waits
}

// Announce gives a notice to whoever waits first, now or later.
func (m *Memory) Announce(n interrupt.Notice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.announced = append(m.announced, n)
	if m.more != nil {
		close(m.more)
		m.more = nil
	}
}

// Wait implements interrupt.Source.
func (m *Memory) Wait(ctx context.Context) (interrupt.Notice, error) {
	for {
		n, more := m.take()
		if more == nil {
			return n, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return interrupt.Notice{}, ctx.Err()
		}
	}
}

// take returns the oldest notice, or a channel that is closed when there is one.
func (m *Memory) take() (interrupt.Notice, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.announced) > 0 {
		n := m.announced[0]
		m.announced = m.announced[1:]
		return n, nil
	}
	if m.more == nil {
		m.more = make(chan struct{})
	}
	return interrupt.Notice{}, m.more
}
