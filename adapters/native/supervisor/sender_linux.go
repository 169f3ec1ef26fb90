package supervisor

import (
	"encoding/json"
	"os"
	"sync"
)

// sender sends events to the worker without ever waiting for it. A worker that
// does not listen costs the memory of a few events for each command, since
// events that only tell of more output are not queued.
type sender struct {
	mu      sync.Mutex
	changed sync.Cond
	queue   []Event
	size    int64 // of the output
	sent    int64 // the size that the worker knows of
	busy    bool  // an event is on its way
}

func newSender(conn *os.File) *sender {
	s := &sender{}
	s.changed.L = &s.mu
	go s.loop(json.NewEncoder(conn))
	return s
}

// send queues an event behind those before it.
func (s *sender) send(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, e)
	s.changed.Broadcast()
}

// grown tells of output that has been stored.
func (s *sender) grown(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = size
	s.changed.Broadcast()
}

// flush waits until all events were sent.
func (s *sender) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 || s.busy {
		s.changed.Wait()
	}
}

func (s *sender) loop(enc *json.Encoder) {
	for {
		s.mu.Lock()
		s.busy = false
		s.changed.Broadcast()
		for len(s.queue) == 0 && s.size == s.sent {
			s.changed.Wait()
		}
		e := Event{Size: s.size}
		if len(s.queue) > 0 {
			e = s.queue[0]
			s.queue = s.queue[1:]
		}
		s.sent, s.busy = max(s.sent, e.Size), true
		s.mu.Unlock()
		// A worker that is gone is noticed where requests are read.
		_ = enc.Encode(e)
	}
}
