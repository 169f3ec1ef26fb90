package main

import (
	"fmt"
	"io"
	"time"
)

func writeHeader(out io.Writer) {
	fmt.Fprintf(out, "%-46s %8s %8s %9s %9s %12s %16s %9s\n",
		"scenario", "took", "tasks/s", "median", "p95", "worker RSS", "supervisors PSS", "budget")
}

func writeRow(out io.Writer, s scenario, f figure) {
	fmt.Fprintf(out, "%-46s %6.2f s %8.2f %6d ms %6d ms %9.1f MB %13.1f MB",
		s, f.took.Seconds(), f.rate, f.median.Milliseconds(), f.p95.Milliseconds(), megabytes(f.rss), megabytes(f.pss))
	if s.worker == ours {
		fmt.Fprintf(out, " %6.0f MB", megabytes(budget(s)))
	}
	fmt.Fprintln(out)
}

// budget returns how much memory the worker may use, in bytes.
func budget(s scenario) int64 { return int64(50+s.capacity) * 1e6 }

// ideal returns how long tasks that sleep for a second take if nothing but the
// tasks takes time.
func ideal(s scenario) time.Duration {
	waves := (s.tasks + s.capacity - 1) / s.capacity
	return time.Duration(waves) * time.Second
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
