package otel

import (
	"log/slog"
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// off returns what New returns where nothing is configured.
func off(tb testing.TB) telemetry.Telemetry {
	tb.Helper()
	clearEnvironment(tb)
	tel, closeTelemetry, err := New(tb.Context(), Config{Service: "worker"}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(closeTelemetry)
	return tel
}

func TestOffAllocatesNothing(t *testing.T) {
	tel := off(t)
	ctx := t.Context()
	attrs := []slog.Attr{slog.String("stage", "running")}
	if got := testing.AllocsPerRun(1000, func() {
		ctx, end := tel.Span(ctx, "run", attrs...)
		tel.Count(ctx, "tasks", 1, attrs...)
		tel.Measure(ctx, "stage.seconds", 1, attrs...)
		tel.Parent(ctx)
		end(nil)
	}); got != 0 {
		t.Errorf("telemetry that is off allocates %v times, want 0", got)
	}
}

func BenchmarkOff(b *testing.B) {
	tel := off(b)
	ctx := b.Context()
	b.Run("attributes at hand", func(b *testing.B) {
		attrs := []slog.Attr{slog.String("stage", "running")}
		b.ReportAllocs()
		for b.Loop() {
			ctx, end := tel.Span(ctx, "run", attrs...)
			tel.Count(ctx, "tasks", 1, attrs...)
			end(nil)
		}
	})
	// The caller's list of attributes, not anything here.
	b.Run("attributes made for the call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, end := tel.Span(ctx, "run", slog.String("stage", "running"))
			tel.Count(ctx, "tasks", 1, slog.String("stage", "running"))
			end(nil)
		}
	})
}

func BenchmarkOn(b *testing.B) {
	clearEnvironment(b)
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+freeAddress(b))
	tel, closeTelemetry, err := New(b.Context(), Config{Service: "worker"}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer closeTelemetry()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		ctx, end := tel.Span(ctx, "run", slog.String("stage", "running"))
		tel.Count(ctx, "tasks", 1, slog.String("stage", "running"))
		end(nil)
	}
}
