package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// measureDocker measures tasks in containers, beside the least that the
// daemon's API takes for the same.
func (b *bench) measureDocker(ctx context.Context, out io.Writer) (err error) {
	if b.daemon, err = dockertest.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.daemon.Stop()) }()

	const each = 20
	bare := map[int]float64{} // per second, by how many at once
	tasks := map[int]figure{}
	fmt.Fprintf(out, "\n%-48s %9s %9s %9s %9s\n", "containers of true", "took", "per s", "median", "p95")
	for _, capacity := range []int{1, 4} {
		count := each * capacity
		// The machine is noisy: what is compared with the worker is measured
		// before it and after it.
		before, err := b.sequences(ctx, capacity, count/2)
		if err != nil {
			return err
		}
		s := scenario{worker: oursInDocker, capacity: capacity, tasks: count, command: []string{"/bin/true"}}
		f, err := b.run(ctx, s, nil)
		if err != nil {
			return fmt.Errorf("measure %s: %w", s, err)
		}
		after, err := b.sequences(ctx, capacity, count/2)
		if err != nil {
			return err
		}
		bare[capacity] = float64(count/2*2) / (before + after).Seconds()
		tasks[capacity] = f
		fmt.Fprintf(out, "%-48s %7.2f s %9.2f\n", fmt.Sprintf("create, start, wait, remove: %d at once", capacity), (before + after).Seconds(), bare[capacity])
		fmt.Fprintf(out, "%-48s %7.2f s %9.2f %6d ms %6d ms\n", s, f.took.Seconds(), f.rate, f.median.Milliseconds(), f.p95.Milliseconds())
	}
	start := time.Now()
	for range each / 2 {
		if err := b.daemon.Run(ctx, "/bin/true"); err != nil {
			return err
		}
	}
	command := float64(each/2) / time.Since(start).Seconds()
	fmt.Fprintf(out, "%-48s %7.2f s %9.2f\n", "docker run --rm", time.Since(start).Seconds(), command)

	fmt.Fprintf(out, "\na task at capacity 1 takes %.2f times the bare sequence (aim ≤ 1.15), and %.2f times docker run --rm\n",
		bare[1]/tasks[1].rate, command/tasks[1].rate)
	fmt.Fprintf(out, "tasks/s at capacity 4: %.2f (aim ≥ 4, or the bare sequence's %.2f)\n", tasks[4].rate, bare[4])
	return nil
}

// sequences runs bare sequences, so many at once, and returns how long all took.
func (b *bench) sequences(ctx context.Context, atOnce, count int) (time.Duration, error) {
	c, err := b.daemon.Client()
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	var left atomic.Int64
	left.Store(int64(count))
	errs := make([]error, atOnce)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range atOnce {
		wg.Go(func() {
			for left.Add(-1) >= 0 && errs[i] == nil {
				errs[i] = b.daemon.Sequence(ctx, c, "/bin/true")
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}
