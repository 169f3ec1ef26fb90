// Package activity announces that a worker has been idle for too long, or has
// lived long enough.
package activity

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Config says what is enough. What is zero has no limit.
type Config struct {
	Idle time.Duration // without any task
	Life time.Duration // of the worker's process
}

// Source announces that there was enough. Running tasks may finish. It has to be
// told of runs by Began and Ended. Its methods are safe for concurrent use.
type Source struct {
	cfg     Config
	life    *time.Timer
	notices chan interrupt.Notice // has room for one of each limit

	mu      sync.Mutex
	idle    *time.Timer // runs while no task does; nil without a limit
	running int
}

var _ interrupt.Source = (*Source)(nil)

// New returns a source for a worker that begins its life now, idle. The returned
// function ends what it does.
func New(cfg Config) (*Source, func()) {
	s := &Source{cfg: cfg, notices: make(chan interrupt.Notice, 2)}
	if cfg.Life > 0 {
		s.life = time.AfterFunc(cfg.Life, func() { s.announce(fmt.Sprintf("the worker has lived for %v", cfg.Life)) })
	}
	if cfg.Idle > 0 {
		s.idle = time.AfterFunc(cfg.Idle, s.idled)
	}
	return s, s.stop
}

func (s *Source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, timer := range []*time.Timer{s.life, s.idle} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// idled announces that there was no task for long, unless one has begun in the
// same moment.
func (s *Source) idled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 {
		s.announce(fmt.Sprintf("no task for %v", s.cfg.Idle))
	}
}

// announce puts a notice where Wait finds it. Of each limit there is one: a
// second one, after a worker that was idle got a last task, finds no room and is
// not missed.
func (s *Source) announce(cause string) {
	select {
	case s.notices <- interrupt.Notice{Cause: cause}:
	default:
	}
}

// Began says that a run begins.
func (s *Source) Began() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
	if s.idle != nil {
		s.idle.Stop()
	}
}

// Ended says that a run is over, of which Began was told.
func (s *Source) Ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.running == 0 && s.idle != nil {
		s.idle.Reset(s.cfg.Idle)
	}
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
