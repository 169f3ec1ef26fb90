package docker

import (
	"context"
	"errors"
	"sync"
)

// LeaveGroups has no more containers put into groups of the worker's, as where
// the daemon leaves them to systemd.
func (e *Engine) LeaveGroups() { e.groups = nil }

// Networks makes so many networks at once, as for so many tasks, and returns a
// function that gives them back.
func (e *Engine) Networks(ctx context.Context, n int) (release func(), err error) {
	places, errs := make([]place, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { places[i], errs[i] = e.networks.acquire(ctx, e.config.Egress, true) })
	}
	wg.Wait()
	return func() {
		for _, p := range places {
			e.networks.release(p, true)
		}
	}, errors.Join(errs...)
}
