package telemetrytest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// harness has a Memory, and may put something broken in front of it.
type harness struct {
	memory *Memory
	front  telemetry.Telemetry
}

func (h harness) Telemetry(testing.TB) telemetry.Telemetry { return h.front }
func (h harness) Recording(testing.TB) Recording           { return h.memory.Recording() }

func TestMemoryConforms(t *testing.T) {
	Test(t, func(testing.TB) Harness {
		m := &Memory{}
		return harness{m, m}
	})
}

// forgetful is a telemetry whose methods may be replaced by broken ones.
type forgetful struct {
	*Memory
	span    func(context.Context, string, ...slog.Attr) (context.Context, func(error))
	count   func(context.Context, string, int64, ...slog.Attr)
	measure func(context.Context, string, float64, ...slog.Attr)
	parent  func(context.Context) string
}

func (f forgetful) Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
	if f.span == nil {
		return f.Memory.Span(ctx, name, attrs...)
	}
	return f.span(ctx, name, attrs...)
}

func (f forgetful) Count(ctx context.Context, name string, n int64, attrs ...slog.Attr) {
	if f.count == nil {
		f.Memory.Count(ctx, name, n, attrs...)
		return
	}
	f.count(ctx, name, n, attrs...)
}

func (f forgetful) Measure(ctx context.Context, name string, value float64, attrs ...slog.Attr) {
	if f.measure == nil {
		f.Memory.Measure(ctx, name, value, attrs...)
		return
	}
	f.measure(ctx, name, value, attrs...)
}

func (f forgetful) Parent(ctx context.Context) string {
	if f.parent == nil {
		return f.Memory.Parent(ctx)
	}
	return f.parent(ctx)
}

func TestChecksCatchWhatTheyAreFor(t *testing.T) {
	broken := []struct {
		check, law string
		breakIt    func(*forgetful)
	}{
		{"NestsSpans", "every span is a root", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				_, end := f.Memory.Span(ctx, name, attrs...)
				return ctx, end
			}
		}},
		{"NestsSpans", "spans never end", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				ctx, _ = f.Memory.Span(ctx, name, attrs...)
				return ctx, func(error) {}
			}
		}},
		{"KeepsTracesApart", "a span is a child of the one started last", func(f *forgetful) {
			last := context.Background()
			f.span = func(_ context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				var end func(error)
				last, end = f.Memory.Span(last, name, attrs...)
				return last, end
			}
		}},
		{"DerivesContext", "the context is a new one", func(f *forgetful) {
			f.span = func(_ context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				return f.Memory.Span(context.Background(), name, attrs...)
			}
		}},
		{"DerivesContext", "the context is never canceled", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				return f.Memory.Span(context.WithoutCancel(ctx), name, attrs...)
			}
		}},
		{"RecordsErrors", "errors are forgotten", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				ctx, end := f.Memory.Span(ctx, name, attrs...)
				return ctx, func(error) { end(nil) }
			}
		}},
		{"RecordsErrors", "every span fails", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				ctx, end := f.Memory.Span(ctx, name, attrs...)
				return ctx, func(error) { end(errFailed) }
			}
		}},
		{"RecordsAttributes", "attributes are forgotten", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, _ ...slog.Attr) (context.Context, func(error)) {
				return f.Memory.Span(ctx, name)
			}
		}},
		{"RecordsAttributes", "every value becomes a string", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				var texts []slog.Attr
				for _, a := range attrs {
					texts = append(texts, slog.String(a.Key, a.Value.String()))
				}
				return f.Memory.Span(ctx, name, texts...)
			}
		}},
		{"RecordsWhenCanceled", "spans of a canceled context are forgotten", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				if ctx.Err() != nil {
					return ctx, func(error) {}
				}
				return f.Memory.Span(ctx, name, attrs...)
			}
		}},
		{"RecordsWhenCanceled", "counts of a canceled context are forgotten", func(f *forgetful) {
			f.count = func(ctx context.Context, name string, n int64, attrs ...slog.Attr) {
				if ctx.Err() == nil {
					f.Memory.Count(ctx, name, n, attrs...)
				}
			}
		}},
		{"RecordsWhenCanceled", "measures of a canceled context are forgotten", func(f *forgetful) {
			f.measure = func(ctx context.Context, name string, value float64, attrs ...slog.Attr) {
				if ctx.Err() == nil {
					f.Memory.Measure(ctx, name, value, attrs...)
				}
			}
		}},
		{"AddsCounts", "a counter counts calls", func(f *forgetful) {
			f.count = func(ctx context.Context, name string, _ int64, attrs ...slog.Attr) {
				f.Memory.Count(ctx, name, 1, attrs...)
			}
		}},
		{"AddsCounts", "attributes of counters are forgotten", func(f *forgetful) {
			f.count = func(ctx context.Context, name string, n int64, _ ...slog.Attr) {
				f.Memory.Count(ctx, name, n)
			}
		}},
		{"AddsMeasures", "values are rounded", func(f *forgetful) {
			f.measure = func(ctx context.Context, name string, value float64, attrs ...slog.Attr) {
				f.Memory.Measure(ctx, name, float64(int(value)), attrs...)
			}
		}},
		{"AddsMeasures", "attributes of histograms are forgotten", func(f *forgetful) {
			f.measure = func(ctx context.Context, name string, value float64, _ ...slog.Attr) {
				f.Memory.Measure(ctx, name, value)
			}
		}},
		{"TellsParent", "there is never a parent", func(f *forgetful) {
			f.parent = func(context.Context) string { return "" }
		}},
		{"TellsParent", "the parent is always the same", func(f *forgetful) {
			f.parent = func(context.Context) string {
				return "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			}
		}},
		{"TellsParent", "the parent is not a traceparent", func(f *forgetful) {
			f.parent = func(ctx context.Context) string { return strings.ToUpper(f.Memory.Parent(ctx)) + ";" }
		}},
		{"TellsParent", "a child starts a trace of its own", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				return f.Memory.Span(context.WithValue(ctx, spanKey{f.Memory}, nil), name, attrs...)
			}
		}},
		{"TellsNoParent", "there is a parent outside of spans", func(f *forgetful) {
			f.parent = func(context.Context) string {
				return "00-00000000000000000000000000000000-0000000000000000-00"
			}
		}},
		{"TakesOddValues", "values are taken as they are", func(f *forgetful) {
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				for _, a := range attrs {
					if v, ok := a.Value.Any().(slog.LogValuer); ok {
						v.LogValue()
					}
				}
				return f.Memory.Span(ctx, name, attrs...)
			}
		}},
		{"TakesOddValues", "an odd value ends the recording", func(f *forgetful) {
			var failed bool
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				failed = failed || name == "odd"
				if failed {
					return ctx, func(error) {}
				}
				return f.Memory.Span(ctx, name, attrs...)
			}
		}},
		{"TakesConcurrentCalls", "updates are lost", func(f *forgetful) {
			var calls atomic.Int64
			f.count = func(ctx context.Context, name string, n int64, attrs ...slog.Attr) {
				if calls.Add(1)%100 != 0 {
					f.Memory.Count(ctx, name, n, attrs...)
				}
			}
		}},
		{"TakesConcurrentCalls", "spans are lost", func(f *forgetful) {
			var calls atomic.Int64
			f.span = func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
				if calls.Add(1)%100 == 0 {
					return ctx, func(error) {}
				}
				return f.Memory.Span(ctx, name, attrs...)
			}
		}},
	}
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			tried := 0
			for _, b := range broken {
				if b.check != c.name {
					continue
				}
				tried++
				m := &Memory{}
				f := &forgetful{Memory: m}
				b.breakIt(f)
				if err := c.check(t.Context(), t, harness{m, f}); err == nil {
					t.Errorf("passes although %s", b.law)
				} else {
					t.Logf("%s: %v", b.law, err)
				}
			}
			if tried == 0 {
				t.Error("nothing shows that this check can fail")
			}
		})
	}
}

func TestRecording(t *testing.T) {
	m := &Memory{}
	ctx, endRun := m.Span(t.Context(), "run", slog.String("task", "a"))
	_, endBuild := m.Span(ctx, "build")
	endBuild(errors.New("no image"))
	_, _ = m.Span(ctx, "stuck")
	endRun(nil)
	endRun(nil)

	r := m.Recording()
	if diff := cmp.Diff("run\n\tbuild: no image\n\tstuck …\n", r.Tree()); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if got := r.Find("run", slog.String("task", "b")); len(got) != 0 {
		t.Errorf("found %v of another task", got)
	}
	if got := r.Find("run", slog.String("task", "a")); len(got) != 1 || len(got[0].Find("build")) != 1 {
		t.Errorf("found %v, want the run with its build", got)
	}
	want := "span run/stuck has not ended\nspan run has ended twice"
	if got := m.Misuse(); got == nil || got.Error() != want {
		t.Errorf("misuse is %v, want %s", got, want)
	}
}
