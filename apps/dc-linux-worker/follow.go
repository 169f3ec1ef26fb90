package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// follower is a recorder whose recordings are also copied to a writer as they
// grow, one after the other. A writer that stalls holds up nothing but the
// copies.
type follower struct {
	tasklog.Recorder
	ctx context.Context //nolint:containedctx // ends the copying, which no caller waits for
	out io.Writer

	mu     sync.Mutex
	last   chan struct{} // closed when the copy of the latest recording is complete
	failed error         // the first one of writing
}

func newFollower(ctx context.Context, r tasklog.Recorder, out io.Writer) *follower {
	done := make(chan struct{})
	close(done)
	return &follower{Recorder: r, ctx: ctx, out: out, last: done}
}

// Record implements tasklog.Recorder.
func (f *follower) Record(id task.RunID) (tasklog.Recording, error) {
	r, err := f.Recorder.Record(id)
	if err != nil {
		return nil, err
	}
	reader, err := r.Follow(f.ctx)
	if err != nil {
		_ = r.Close() // it is empty
		return nil, fmt.Errorf("follow task log: %w", err)
	}
	copied := make(chan struct{})
	f.mu.Lock()
	previous := f.last
	f.last = copied
	f.mu.Unlock()

	released := make(chan struct{})
	go func() {
		defer close(copied)
		<-previous
		// Whoever does not want to read the log any more, or cannot, is no
		// reason to stop the task.
		if _, err := io.Copy(f.out, reader); err != nil && f.ctx.Err() == nil {
			f.fail(err)
		}
		_ = reader.Close()
		<-released
		_ = r.Close()
	}()
	return &followed{Recording: r, release: sync.OnceFunc(func() { close(released) })}, nil
}

func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
}

// err returns why the log was not copied to its end, unless its reader has gone.
func (f *follower) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.failed, syscall.EPIPE) {
		return nil
	}
	return f.failed
}

// finished is closed once all there is was copied, or copying has ended.
func (f *follower) finished() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// followed is a recording whose storage is freed only when it was copied.
type followed struct {
	tasklog.Recording
	release func()
}

// Close implements tasklog.Recording.
func (f *followed) Close() error {
	defer f.release()
	return f.Seal()
}
