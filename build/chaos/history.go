package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// history is what the suite has done, and when.
type history struct {
	start time.Time

	mu     sync.Mutex
	events []event
	counts map[string]int
}

type event struct {
	at   time.Time
	what string
}

func newHistory() *history { return &history{start: time.Now(), counts: map[string]int{}} }

// note adds an event, and counts it by its name.
func (h *history) note(name, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[name]++
	h.events = append(h.events, event{time.Now(), name + ": " + fmt.Sprintf(format, args...)})
}

// over adds the end of an event.
func (h *history) over(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event{time.Now(), name + " is over"})
}

func (h *history) count(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[name]
}

// write writes what happened from one time to another.
func (h *history) write(out io.Writer, from, to time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if !e.at.Before(from) && !e.at.After(to) {
			fmt.Fprintf(out, "    %s %s\n", e.at.UTC().Format("15:04:05.000"), e.what)
		}
	}
}
