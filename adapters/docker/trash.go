package docker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// removeContainer ends a container and removes it with its anonymous volumes. It
// is no error if there is none.
func (e *Engine) removeContainer(ctx context.Context, id string) error {
	_, err := e.daemon.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case errdefs.IsConflict(err): // somebody else is removing it
		wait := e.daemon.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: "removed"})
		select {
		case <-wait.Result:
			return nil
		case err = <-wait.Error:
			if errdefs.IsNotFound(err) {
				return nil
			}
		}
	}
	return fmt.Errorf("remove container: %w", err)
}

func (e *Engine) removeNetwork(ctx context.Context, id string) error {
	if _, err := e.daemon.NetworkRemove(ctx, id, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove network: %w", err)
	}
	return nil
}

// trash removes what is not needed any more, without anybody waiting, and tries
// again where the daemon does not let it: a volume that is in a container, say,
// or anything while the daemon is gone.
type trash struct {
	e     *Engine
	slots chan struct{} // bounds how many removals the daemon is asked for at once

	// Containers are removed before what is in them: hurry is closed when the
	// engine closes, and last when all containers have had their last chance.
	hurry, last chan struct{}
	containers  sync.WaitGroup
	others      sync.WaitGroup

	// ctx ends when what is left is the next worker's to remove.
	ctx    context.Context
	cancel context.CancelFunc
}

func newTrash(e *Engine) *trash {
	t := &trash{e: e, slots: make(chan struct{}, 4), hurry: make(chan struct{}), last: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(e.ctx))
	return t
}

// container removes a container. The channel is closed when it is gone, or
// cannot be removed before the engine is closed.
func (t *trash) container(id string) <-chan struct{} {
	gone := make(chan struct{})
	t.containers.Go(func() {
		defer close(gone)
		t.remove("container", id, t.e.removeContainer, t.hurry)
	})
	return gone
}

// settle waits until all containers are gone that are being removed.
func (t *trash) settle(ctx context.Context) {
	idle := make(chan struct{})
	t.others.Go(func() {
		defer close(idle)
		t.containers.Wait()
	})
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// place removes a network, and before it the container that rests in it, which
// stays, with Podman, for as long as there is one in its namespace.
func (t *trash) place(p place) {
	t.others.Go(func() {
		if p.resting != "" {
			t.remove("container", p.resting, t.e.removeContainer, t.last)
		}
		if p.network != "" {
			t.remove("network", p.network, t.e.removeNetwork, t.last)
		}
	})
}

func (t *trash) volume(name string) {
	t.others.Go(func() { t.remove("volume", name, t.e.removeVolume, t.last) })
}

// remove tries until it succeeds, and once more after last is closed.
func (t *trash) remove(what, id string, remove func(context.Context, string) error, last <-chan struct{}) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, t.e.config.RemovalInterval) {
		final := false
		select {
		case <-last:
			final = true
		default:
		}
		err := t.once(id, remove)
		if err == nil || t.ctx.Err() != nil {
			return
		}
		if pause > time.Second || final {
			t.e.log.Warn("not removed yet", slog.String("what", what), slog.String("id", id), slog.Any("error", err))
		}
		if final {
			return
		}
		select {
		case <-last:
		case <-time.After(pause):
		}
	}
}

func (t *trash) once(id string, remove func(context.Context, string) error) error {
	t.slots <- struct{}{}
	defer func() { <-t.slots }()
	ctx, cancel := context.WithTimeout(t.ctx, callTime)
	defer cancel()
	return remove(ctx, id)
}

// close waits for what is being removed, each of which is tried once more. What
// could not be removed with patience is the next worker's to remove: a daemon
// that is frozen does not hold up the end of the worker for long.
func (t *trash) close(patience time.Duration) {
	timer := time.AfterFunc(patience, t.cancel)
	defer timer.Stop()
	close(t.hurry)
	t.containers.Wait()
	close(t.last)
	t.others.Wait()
	t.cancel()
}
