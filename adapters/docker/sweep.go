package docker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// mine selects what carries the labels.
func (e *Engine) mine() client.Filters {
	return client.Filters{}.Add("label", labelInstance+"="+e.config.Instance)
}

// sweep removes the containers and networks of an earlier worker, but for what
// can be reattached. What the daemon does not remove yet it is asked for again in
// the background, since it must not keep the worker from going on with tasks.
func (e *Engine) sweep(ctx context.Context) error {
	containers, err := e.daemon.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.mine()})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	e.orphans = map[task.RunID]*orphan{}
	keep := map[string]bool{} // IDs and paths
	for _, c := range containers.Items {
		if o := e.orphanOf(c); o != nil && e.orphans[o.run] == nil {
			e.log.InfoContext(ctx, "task of an earlier worker found", slog.String("run", o.run.String()), slog.String("container", o.id))
			e.orphans[o.run] = o
			o.keep(keep)
			e.networks.occupy(o.place)
			o.loans = e.pools.hold(o.devices)
		}
	}
	if err := e.removeOthers(ctx, keep, e.trash.place); err != nil {
		return err
	}
	return e.clearDir(keep)
}

// sweepAgain removes, when all else is removed, what is there again: a daemon
// that goes away may say of something that it is removed, and have it when it
// comes back. What cannot be removed now is left to the next worker.
func (e *Engine) sweepAgain() {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	keep := map[string]bool{}
	e.mu.Lock()
	for _, o := range e.orphans {
		o.keep(keep)
	}
	e.mu.Unlock()
	if err := e.removeOthers(ctx, keep, func(place) {}); err != nil {
		e.log.WarnContext(ctx, "what is left of tasks could not be looked for", slog.Any("error", err))
	}
}

// keep adds the IDs and paths of what the task of an orphan needs.
func (o *orphan) keep(all map[string]bool) {
	for _, what := range []string{o.id, o.place.network, o.place.resting, o.transcript} {
		all[what] = true
	}
}

// removeOthers removes the containers and networks of this instance, but for
// those to be kept. It calls left for each that it cannot remove.
func (e *Engine) removeOthers(ctx context.Context, keep map[string]bool, left func(place)) error {
	remove := func(id string, remove func(context.Context, string) error) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		return remove(ctx, id)
	}
	containers, err := e.daemon.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.mine()})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers.Items {
		if keep[c.ID] {
			continue
		}
		e.log.InfoContext(ctx, "remove a container that was left", slog.String("container", c.ID),
			slog.String("taskId", c.Labels[labelTask]), slog.String("runId", c.Labels[labelRun]))
		if err := remove(c.ID, e.removeContainer); err != nil {
			e.log.WarnContext(ctx, "not removed yet", slog.String("container", c.ID), slog.Any("error", err))
			left(place{resting: c.ID})
		}
	}
	networks, err := e.daemon.NetworkList(ctx, client.NetworkListOptions{Filters: e.mine()})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, n := range networks.Items {
		if keep[n.ID] {
			continue
		}
		if err := remove(n.ID, e.removeNetwork); err != nil {
			e.log.WarnContext(ctx, "not removed yet", slog.String("network", n.ID), slog.Any("error", err))
			left(place{network: n.ID})
		}
	}
	return nil
}
