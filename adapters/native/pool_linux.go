package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fill makes the pool of berths and keeps it filled. It returns once the pool is
// full, so that the first tasks need not share the processors with that. That
// there is one berth shows that the engine can work.
func (e *Engine) fill(ctx context.Context) error {
	first, err := e.prepare(ctx)
	if err != nil && e.users.current != nil {
		e.log.WarnContext(ctx, "no namespaces: tasks see the worker's files and processes", slog.Any("error", err))
		e.isolated = false
		first, err = e.prepare(ctx)
	}
	if err != nil {
		return fmt.Errorf("prepare sandbox: %w", err)
	}
	// Each of those who prepare berths holds one that is ready, too. The slots
	// bound what is ready, in use, and still to be removed.
	preparers := min(2, e.config.Warm)
	e.ready = make(chan *berth, max(1, e.config.Warm-preparers))
	e.failures = make(chan error)
	e.slots = make(chan struct{}, 4*e.config.Capacity+e.config.Warm+8+len(e.orphans))
	for range e.orphans {
		e.slots <- struct{}{}
	}
	e.slots <- struct{}{}
	e.ready <- first
	filled := make(chan struct{})
	once := sync.OnceFunc(func() { close(filled) })
	for range preparers {
		e.preparers.Go(func() { e.keepReady(once) })
	}
	select {
	case <-filled:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := errors.Join(e.users.stock(ctx, e.config.Capacity), e.places.stock(e.config.Capacity)); err != nil {
		e.log.WarnContext(ctx, "users and directories of tasks not made ahead", slog.Any("error", err))
	}
	return ctx.Err()
}

// empty empties the pool, once the engine's context is done.
func (e *Engine) empty() {
	e.preparers.Wait()
	for {
		select {
		case b := <-e.ready:
			e.discard(b)
		default:
			return
		}
	}
}

// roomPatience is how long tasks wait for a sandbox while the disk is full. Other
// tasks that end, and whoever looks after the host, make room.
const roomPatience = 5 * time.Minute

// shortage is since when the disk is full. The zero shortage is none.
type shortage struct{ since time.Time }

// passes reports whether err says that the disk is full, and has not been for
// long.
func (s *shortage) passes(err error) bool {
	if !errors.Is(err, unix.ENOSPC) {
		s.since = time.Time{}
		return false
	}
	if s.since.IsZero() {
		s.since = time.Now()
	}
	return time.Since(s.since) < roomPatience
}

// keepReady prepares berths until the engine is closed. It calls filled when the
// pool is full, or cannot be filled for now.
func (e *Engine) keepReady(filled func()) {
	var full shortage
	for {
		select {
		case e.slots <- struct{}{}:
		case <-e.ctx.Done():
			return
		}
		b, err := e.prepare(e.ctx)
		if err != nil {
			<-e.slots
			filled()
			if !e.reportFailure(err, full.passes(err)) {
				return
			}
			continue
		}
		full = shortage{}
		select {
		case e.ready <- b:
			continue
		default:
			filled()
		}
		select {
		case e.ready <- b:
		case <-e.ctx.Done():
			e.discard(b)
			return
		}
	}
}

// reportFailure gives a failure to prepare a berth to a task that waits for
// one, or waits a while if there is none, or if it may pass. It returns false
// when the engine is closed.
func (e *Engine) reportFailure(err error, passing bool) bool {
	if e.ctx.Err() != nil {
		return false
	}
	e.log.ErrorContext(e.ctx, "sandbox not prepared", slog.Any("error", err))
	failures := e.failures
	if passing {
		failures = nil
	}
	select {
	case failures <- err:
		return true
	case <-time.After(time.Second):
		return true
	case <-e.ctx.Done():
		return false
	}
}

// acquire returns a berth that is ready.
func (e *Engine) acquire(ctx context.Context) (*berth, error) {
	b, err := e.await(ctx)
	if err == nil {
		e.occupy(b)
	}
	return b, err
}

func (e *Engine) await(ctx context.Context) (*berth, error) {
	select {
	case b := <-e.ready: // in preference to an old failure
		return b, nil
	default:
	}
	select {
	case b := <-e.ready:
		return b, nil
	case err := <-e.failures:
		return nil, fmt.Errorf("prepare sandbox: %w", err)
	case <-e.ctx.Done():
		return nil, errors.New("the engine is closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// discard disposes of a berth in the background. The channel is closed when
// nothing of the task is left running.
func (e *Engine) discard(b *berth) (vacated <-chan struct{}) {
	done := make(chan struct{})
	e.mu.Lock()
	delete(e.occupied, b)
	e.mu.Unlock()
	e.background.Go(func() {
		ctx := context.WithoutCancel(e.ctx)
		err := e.vacate(ctx, b)
		close(done)
		if err != nil {
			e.log.ErrorContext(ctx, "sandbox not disposed of properly", slog.String("directory", b.dir), slog.Any("error", err))
			if !errors.Is(err, errGoesOn) {
				e.removeDir(ctx, b.dir)
			}
		} else if err := e.places.give(b.id); err != nil {
			e.log.ErrorContext(ctx, "directory not emptied", slog.Any("error", err))
		}
		<-e.slots
	})
	return done
}

// removeDir removes the directory of a berth.
func (e *Engine) removeDir(ctx context.Context, dir string) {
	if err := removeTree(dir); err != nil {
		e.log.ErrorContext(ctx, "directory not removed", slog.Any("error", err))
	}
}
