// Command bench measures the worker, and generic-worker beside it, on a
// development queue in its own process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

func main() {
	os.Exit(dockertest.Inside(inside))
}

// inside measures in a network of its own, where the Docker daemon is.
func inside() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// run measures every scenario and writes what came of them. It leaves neither
// files nor processes behind.
func run(ctx context.Context, out io.Writer) (err error) {
	// Where workers have their directories: tasks see another /tmp and /var/tmp,
	// in which the way to their directories would have to be made for each.
	dir, err := os.MkdirTemp("/var/lib", "taskcluster-worker-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the users of tasks pass through
		return err
	}
	server, shut, err := devqueue.Open(ctx, devqueue.Config{Dir: filepath.Join(dir, "queue")}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer shut()
	b := &bench{dir: dir, server: server}
	if err := b.measureNative(ctx, out); err != nil {
		return err
	}
	return b.measureDocker(ctx, out)
}

// measureNative measures tasks as processes, beside generic-worker. Memory is
// measured in runs of its own, for looking at it takes the processor from the
// worker; generic-worker pauses for long enough.
func (b *bench) measureNative(ctx context.Context, out io.Writer) error {
	one := scenario{worker: ours, capacity: 1, tasks: 200, command: []string{"/bin/true"}}
	eight := scenario{worker: ours, capacity: 8, tasks: 200, command: []string{"/bin/true"}}
	many := scenario{worker: ours, capacity: 32, tasks: 200, command: []string{"/bin/true"}}
	sleep := scenario{worker: ours, capacity: 32, tasks: 64, command: []string{"/bin/sleep", "1"}}
	// Few, for generic-worker leaves 5 seconds between two claims.
	peer := scenario{worker: genericWorker, capacity: 1, tasks: 20, command: []string{"/bin/true"}}
	// The time of all of them comes before the memory of any, and that of the
	// tasks which start at once comes first: file systems are slow for a minute
	// after many files were removed, which each scenario does.
	own := []scenario{sleep, one, eight, many}
	figures := make(map[string]figure)
	for _, s := range own {
		f, err := b.run(ctx, s, nil)
		if err != nil {
			return fmt.Errorf("measure %s: %w", s, err)
		}
		figures[s.String()] = f
	}
	for _, s := range append(own, peer) {
		var m memory
		f, err := b.run(ctx, s, &m)
		if err != nil {
			return fmt.Errorf("measure memory of %s: %w", s, err)
		}
		if timed, ok := figures[s.String()]; ok {
			f = timed
		}
		f.rss, f.pss = m.rss, m.pss
		figures[s.String()] = f
	}
	writeHeader(out)
	for _, s := range append(own, peer) {
		writeRow(out, s, figures[s.String()])
	}
	fmt.Fprintln(out, "\ngeneric-worker 44 (simple engine) has no capacity: it runs one task at a time, and leaves 5 s between two claims.")
	fmt.Fprintf(out, "tasks/s at capacity 1: ours / generic-worker = %.2f (aim ≥ 3), which is mostly that pause\n",
		figures[one.String()].rate/figures[peer.String()].rate)
	fmt.Fprintf(out, "claim to resolution at capacity 1, median, which has no pause: generic-worker / ours = %.2f\n",
		figures[peer.String()].median.Seconds()/figures[one.String()].median.Seconds())
	fmt.Fprintf(out, "sleep 1 at 32: %.0f %% of the ideal (aim ≥ 90 %%)\n", 100*ideal(sleep).Seconds()/figures[sleep.String()].took.Seconds())
	for _, s := range own {
		f := figures[s.String()]
		fmt.Fprintf(out, "memory of %s: worker %.1f MB + supervisors %.1f MB = %.1f MB (aim ≤ %.0f MB)\n",
			s, megabytes(f.rss), megabytes(f.pss), megabytes(f.rss+f.pss), megabytes(budget(s)))
	}
	return nil
}
