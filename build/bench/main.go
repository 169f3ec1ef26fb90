// Command bench measures the worker on an embedded queue.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run prints a line for each scenario, and then the figures that are aimed at.
func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("/var/tmp", "bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the users of tasks pass through
		return err
	}
	server, shut, err := devqueue.Open(ctx, devqueue.Config{Dir: dir + "/queue"}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer shut()
	b := &bench{dir: dir, server: server}

	fmt.Fprintf(out, "%-36s %8s %10s %10s %12s %14s\n", "", "tasks/s", "median", "p95", "worker RSS", "children PSS")
	figures := map[string]figure{}
	for _, s := range []scenario{
		{"dc-linux-worker, true, capacity 1", 1, 200, "/bin/true"},
		{"dc-linux-worker, true, capacity 8", 8, 200, "/bin/true"},
		{"dc-linux-worker, true, capacity 32", 32, 200, "/bin/true"},
		{"dc-linux-worker, sleep 1, capacity 32", 32, 64, "/bin/sleep 1"},
	} {
		f, err := b.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		figures[s.name] = f
		fmt.Fprintf(out, "%-36s %8.1f %8dms %8dms %9.1f MB %11.1f MB\n", s.name, f.rate,
			f.median.Milliseconds(), f.p95.Milliseconds(), mega(f.rss), mega(f.pss))
	}
	sleep := figures["dc-linux-worker, sleep 1, capacity 32"]
	fmt.Fprintf(out, "sleep 1 at capacity 32, of the ideal: %.0f %% (aim: at least 90 %%)\n", 100*sleep.rate/32)
	fmt.Fprintf(out, "memory at capacity 32, worker and supervisors: %.1f MB (aim: under %d MB)\n", mega(sleep.rss+sleep.pss), 50+32)
	return nil
}

func mega(bytes int64) float64 { return float64(bytes) / 1e6 }
