package otel

import (
	"log/slog"
	"syscall"
	"testing"
	"time"
)

// Whatever becomes of the collector, recording does not wait for it.
func TestNeverDelays(t *testing.T) {
	for _, what := range []struct {
		name     string
		endpoint func(*testing.T, func(*collector) string) string
	}{
		{"a frozen collector", func(t *testing.T, endpoint func(*collector) string) string {
			t.Helper()
			c := startCollector(t)
			if err := c.process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			return endpoint(c)
		}},
		{"a collector that is down", func(t *testing.T, _ func(*collector) string) string {
			t.Helper()
			return "http://" + freeAddress(t)
		}},
	} {
		for _, p := range protocols {
			t.Run(what.name+" over "+p.name, func(t *testing.T) {
				clearEnvironment(t)
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", what.endpoint(t, p.endpoint))
				t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", p.name)
				t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
				t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
				t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "1")
				const timeout = 400 * time.Millisecond
				tel, closeTelemetry, err := New(t.Context(), Config{Service: "test", ShutdownTimeout: timeout},
					slog.New(slog.NewTextHandler(t.Output(), nil)))
				if err != nil {
					t.Fatal(err)
				}
				// Many times the queue, so that it is full for most of them.
				var slowest time.Duration
				for range 5000 {
					start := time.Now()
					ctx, end := tel.Span(t.Context(), "run", slog.String("task.id", "fN1SbArXTPSVFNUvaOlinQ"))
					tel.Count(ctx, "tasks", 1)
					tel.Measure(ctx, "stage.seconds", 1)
					tel.Parent(ctx)
					end(nil)
					slowest = max(slowest, time.Since(start))
				}
				// What waits for the collector waits for 10 seconds. The rest
				// is what a busy machine may take.
				if bound := time.Second; slowest > bound {
					t.Errorf("the slowest record took %v, want at most %v", slowest, bound)
				}
				start := time.Now()
				closeTelemetry()
				if took, bound := time.Since(start), timeout+time.Second; took > bound {
					t.Errorf("shutdown took %v, want at most %v", took, bound)
				}
				// Nor does it fail or wait afterwards.
				_, end := tel.Span(t.Context(), "late")
				tel.Count(t.Context(), "late", 1)
				end(nil)
				closeTelemetry()
				t.Logf("slowest %v, shutdown %v", slowest, time.Since(start))
			})
		}
	}
}
