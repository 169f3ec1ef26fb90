package otel

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness sends to a collector.
type harness struct {
	collector *collector
	telemetry telemetry.Telemetry
	close     func()
}

// newHarness returns a harness whose telemetry names the test as sender.
func newHarness(tb testing.TB, c *collector) *harness {
	tb.Helper()
	h := &harness{collector: c}
	var err error
	h.telemetry, h.close, err = New(tb.Context(), Config{
		Service:    "dc-linux-worker",
		Version:    "1.2.3",
		Attributes: []slog.Attr{slog.String("sender", tb.Name()), slog.Group("worker", slog.String("pool", "proj/ci"))},
	}, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.close)
	return h
}

func (h *harness) Telemetry(testing.TB) telemetry.Telemetry { return h.telemetry }

// Recording has a last span and count sent after all others, and waits for them.
func (h *harness) Recording(tb testing.TB) telemetrytest.Recording {
	tb.Helper()
	return h.received(tb).recording()
}

func (h *harness) received(tb testing.TB) received {
	tb.Helper()
	const last = "last of the test"
	_, end := h.telemetry.Span(tb.Context(), last)
	end(nil)
	// Metrics are sent in one request.
	h.telemetry.Count(tb.Context(), "last", 1)
	h.close()
	r := h.collector.await(tb, tb.Name(), func(r received) bool {
		recording := r.recording()
		return len(recording.Find(last)) == 1 && recording.Counted("last") == 1
	})
	for i, s := range r.spans {
		if s.GetName() == last {
			r.spans = append(r.spans[:i], r.spans[i+1:]...)
			break
		}
	}
	return r
}

// protocols says how to reach a collector by each protocol.
var protocols = []struct {
	name     string
	endpoint func(*collector) string
}{
	{protocolGRPC, func(c *collector) string { return c.grpc }},
	{protocolHTTP, func(c *collector) string { return c.http }},
}

func TestConforms(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			clearEnvironment(t)
			c := startCollector(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", p.endpoint(c))
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", p.name)
			telemetrytest.Test(t, func(tb testing.TB) telemetrytest.Harness {
				tb.Helper()
				return newHarness(tb, c)
			})
		})
	}
}

// One run of a task as the worker records it, in the words of OpenTelemetry.
func TestRunArrives(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			clearEnvironment(t)
			c := startCollector(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", p.endpoint(c))
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", p.name)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,worker.pool=of%20environment")
			h := newHarness(t, c)

			run, endRun := h.telemetry.Span(t.Context(), "run", slog.String("task.id", "fN1SbArXTPSVFNUvaOlinQ"))
			stage, endStage := h.telemetry.Span(run, "run.preparing")
			_, endHook := h.telemetry.Span(stage, "plugin.cache.prepare")
			endHook(errOdd)
			endStage(errOdd)
			endRun(nil)
			h.telemetry.Count(run, "tasks", 1, slog.String("outcome", "exception"))
			h.telemetry.Measure(run, "stage.seconds", 0.3, slog.String("stage", "preparing"))
			r := h.received(t)

			wantTree := "run\n\trun.preparing: no cache: ?\n\t\tplugin.cache.prepare: no cache: ?\n"
			if diff := cmp.Diff(wantTree, r.recording().Tree()); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
			wantResource := telemetrytest.Attrs{
				"service.name": "dc-linux-worker", "service.version": "1.2.3", "sender": t.Name(),
				"deployment.environment": "test", "worker.pool": "of environment",
			}
			ofSDK := cmpopts.IgnoreMapEntries(func(k string, _ any) bool { return strings.HasPrefix(k, "telemetry.sdk.") })
			if diff := cmp.Diff(wantResource, r.resource, ofSDK); diff != "" {
				t.Errorf("resource (-want +got):\n%s", diff)
			}
			for _, m := range r.metrics {
				switch m.GetName() {
				case "tasks":
					if !m.GetSum().GetIsMonotonic() {
						t.Error("tasks is not a counter")
					}
				case "stage.seconds":
					if got, want := m.GetUnit(), "s"; got != want {
						t.Errorf("unit is %q, want %q", got, want)
					}
					point := m.GetHistogram().GetDataPoints()[0]
					if got, want := len(point.GetExplicitBounds()), 22; got != want {
						t.Errorf("histogram has %d bounds, want %d", got, want)
					}
					// 0.3 is above 0.25, the sixth bound, and at most 0.5.
					if got := point.GetBucketCounts()[6]; got != 1 {
						t.Errorf("buckets are %v, want one in the seventh", point.GetBucketCounts())
					}
				}
			}
		})
	}
}

type oddError struct{}

func (oddError) Error() string { return "no cache: \xff" }

var errOdd error = oddError{}
