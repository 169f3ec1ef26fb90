// Package signals turns signals to the process into interruptions.
package signals

import (
	"context"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

var _ interrupt.Source = (*Source)(nil)

// Config says how signals are understood.
type Config struct {
	// Grace is how long whoever sends SIGTERM or SIGINT waits until it kills
	// the process. Zero means 30 seconds.
	Grace time.Duration
}

// Source announces, at most once each and never anything less urgent than
// before:
//
//   - SIGUSR1, where there is one: running tasks may finish;
//   - SIGTERM and SIGINT: running tasks are stopped, with the grace period left;
//   - a second one of those: there is no time left.
type Source struct {
	grace   time.Duration
	notices chan interrupt.Notice // has room for one of each urgency
}

// The urgencies of notices.
const (
	none = iota
	finishing
	stopping
	hurrying
)

// New returns a source for caught signals, and a function that releases them.
func New(cfg Config, c *Caught) (*Source, func()) {
	s := newSource(cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.listen(c.kept)
	}()
	return s, func() {
		c.Release()
		<-done
	}
}

func newSource(cfg Config) *Source {
	if cfg.Grace <= 0 {
		cfg.Grace = 30 * time.Second
	}
	return &Source{grace: cfg.Grace, notices: make(chan interrupt.Notice, hurrying)}
}

// Wait implements interrupt.Source.
func (s *Source) Wait(ctx context.Context) (interrupt.Notice, error) {
	select {
	case n := <-s.notices:
		return n, nil
	case <-ctx.Done():
		return interrupt.Notice{}, ctx.Err()
	}
}

// listen announces signals, until there will be no more.
func (s *Source) listen(kept <-chan received) {
	urgency := none
	for r := range kept {
		n := interrupt.Notice{Cause: name(r.signal)}
		switch {
		case slices.Contains(finishes(), r.signal) && urgency < finishing:
			urgency = finishing
		case slices.Contains(stops(), r.signal) && urgency < stopping:
			urgency = stopping
			n.Deadline = r.at.Add(s.grace)
		case slices.Contains(stops(), r.signal) && urgency < hurrying:
			urgency = hurrying
			n.Deadline = r.at
		default:
			continue
		}
		s.notices <- n
	}
}

// stops returns the signals that leave only the grace period. Windows has them
// as Ctrl+C, and as the end of the console, the session or the system.
func stops() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// name returns the name of a signal as one types it.
func name(sig os.Signal) string {
	switch sig {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	default:
		return "SIGUSR1"
	}
}
