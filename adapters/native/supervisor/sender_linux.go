package supervisor

import (
	"encoding/json"
	"os"
	"strconv"
	"sync"
)

// history is all that has happened, for every worker to be told: a few events
// for each command, and how much output there is.
type history struct {
	mu      sync.Mutex
	changed sync.Cond
	events  []Event
	size    int64 // of the output
}

func newHistory() *history {
	h := &history{}
	h.changed.L = &h.mu
	return h
}

// add adds an event. It happens at the size that the output has now, so that no
// worker is told of more output before.
func (h *history) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Size = h.size
	h.events = append(h.events, e)
	h.changed.Broadcast()
}

// grown tells of output that has been stored.
func (h *history) grown(size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.size = size
	h.changed.Broadcast()
}

// sender tells a worker. Nothing ever waits for it but itself.
type sender struct {
	from *history
	conn *os.File
	gone bool // with the lock of from
	done chan struct{}
}

func (h *history) tell(conn *os.File) *sender {
	s := &sender{from: h, conn: conn, done: make(chan struct{})}
	go s.loop()
	return s
}

// stop closes the connection.
func (s *sender) stop() {
	s.from.mu.Lock()
	s.gone = true
	s.from.changed.Broadcast()
	s.from.mu.Unlock()
	_ = s.conn.Close()
	<-s.done
}

func (s *sender) loop() {
	defer close(s.done)
	enc := json.NewEncoder(s.conn)
	var buf [64]byte
	h, told, sent := s.from, 0, int64(0)
	for {
		h.mu.Lock()
		for !s.gone && len(h.events) == told && h.size == sent {
			h.changed.Wait()
		}
		if s.gone {
			h.mu.Unlock()
			return
		}
		var event *Event
		size := h.size
		if len(h.events) > told {
			event = &h.events[told] // which does not change any more
			size = event.Size
			told++
		}
		sent = max(sent, size)
		h.mu.Unlock()
		// A worker that is gone is noticed where requests are read.
		if event != nil {
			_ = enc.Encode(event)
			continue
		}
		// Of these there are many: each as Event{Size: size}, without garbage.
		_, _ = s.conn.Write(append(strconv.AppendInt(append(buf[:0], `{"size":`...), size, 10), "}\n"...))
	}
}
