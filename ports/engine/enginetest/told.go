package enginetest

import (
	"context"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// memoryTold is what a task has been told of interruptions.
type memoryTold struct {
	mu      sync.Mutex
	file    []byte
	stop    bool
	changed chan struct{}
}

func (t *memoryTold) tell(i engine.Interruption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.file = i.File()
	t.stop = t.stop || i.Stop
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *memoryTold) stopping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stop
}

// Interrupt implements engine.Interrupter.
func (a *memoryAttached) Interrupt(ctx context.Context, i engine.Interruption) error {
	select {
	case <-a.detached:
	case <-a.ctx.Done(): // it has ended, or is about to
	default:
		a.told.tell(i)
	}
	return ctx.Err()
}

// heed is what a Heed step does.
func (s *memorySandbox) heed(say func(string)) (code int) {
	s.told.mu.Lock()
	again := s.told.file != nil
	s.told.mu.Unlock()
	if again {
		say("heeding again\n")
	} else {
		say("heeding\n")
	}
	return s.await(say, func(t *memoryTold) bool { return t.stop })
}

// await waits until the task has been told what is wanted, and prints the
// interruption file.
func (s *memorySandbox) await(say func(string), wanted func(*memoryTold) bool) (code int) {
	for {
		s.told.mu.Lock()
		file, ok, changed := s.told.file, wanted(&s.told), s.told.changed
		s.told.mu.Unlock()
		if ok {
			say(string(file))
			return 0
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return 1
		}
	}
}
