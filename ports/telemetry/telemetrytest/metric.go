package telemetrytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
)

func addsCounts(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	completed, failed := slog.String("outcome", "completed"), slog.String("outcome", "failed")
	t.Count(ctx, "tasks", 2, completed)
	t.Count(ctx, "tasks", 3, completed)
	t.Count(ctx, "tasks", 1, failed)
	t.Count(ctx, "claims", 7)
	r := h.Recording(tb)
	for _, tt := range []struct {
		name  string
		attrs []slog.Attr
		want  int64
	}{
		{"tasks", []slog.Attr{completed}, 5},
		{"tasks", []slog.Attr{failed}, 1},
		{"tasks", nil, 6},
		{"claims", nil, 7},
	} {
		if got := r.Counted(tt.name, tt.attrs...); got != tt.want {
			return fmt.Errorf("counted %d %s with %v, want %d", got, tt.name, tt.attrs, tt.want)
		}
	}
	return nil
}

func addsMeasures(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	building, running := slog.String("stage", "building"), slog.String("stage", "running")
	t.Measure(ctx, "stage.seconds", 0.25, building)
	t.Measure(ctx, "stage.seconds", 0.5, building)
	t.Measure(ctx, "stage.seconds", 3600, running)
	r := h.Recording(tb)
	for _, tt := range []struct {
		attr    slog.Attr
		wantN   int64
		wantSum float64
	}{
		{building, 2, 0.75},
		{running, 1, 3600},
	} {
		if n, sum := r.Measured("stage.seconds", tt.attr); n != tt.wantN || sum != tt.wantSum {
			return fmt.Errorf("measured %d values of sum %g with %v, want %d of sum %g", n, sum, tt.attr, tt.wantN, tt.wantSum)
		}
	}
	return nil
}

// broken is a value that panics when it is looked at.
type broken struct{}

func (broken) LogValue() slog.Value { panic("no value") }

// Tasks have a say in what is recorded, such as the text of an error. Whatever
// it is, it neither fails the caller nor takes anything else with it.
func takesOddValues(ctx context.Context, tb testing.TB, h Harness) (err error) {
	tb.Helper()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("odd value caused a panic: %v", r)
		}
	}()
	t := h.Telemetry(tb)
	for _, v := range []any{
		"\xff\xfe not UTF-8", strings.Repeat("long ", 1<<20), "nul \x00", nil, math.NaN(), math.Inf(1),
		uint64(math.MaxUint64),
		[]string{"a", "\xff"},
		map[string]any{"a": 1},
		errFailed,
		broken{},
		make(chan int),
	} {
		_, end := t.Span(ctx, "odd", slog.Any("value", v), slog.Any("", v))
		end(fmt.Errorf("odd value: %v", v))
		t.Count(ctx, "odd", 1, slog.Any("value", v))
		t.Measure(ctx, "odd.seconds", 1, slog.Any("value", v))
	}
	t.Measure(ctx, "nan.seconds", math.NaN())
	t.Measure(ctx, "infinite.seconds", math.Inf(-1))
	t.Count(ctx, "", 1)
	t.Count(ctx, "no name\xff", 1)
	t.Measure(ctx, "", 1)
	_, end := t.Span(ctx, "good")
	end(errors.New("not UTF-8: \xff"))
	t.Count(ctx, "good", 1)
	t.Measure(ctx, "good.seconds", 1)

	r := h.Recording(tb)
	if n := len(r.Find("good")); n != 1 {
		return fmt.Errorf("recorded %d spans after odd ones, want 1", n)
	}
	if got := r.Counted("good"); got != 1 {
		return fmt.Errorf("counted %d after odd attributes, want 1", got)
	}
	if n, _ := r.Measured("good.seconds"); n != 1 {
		return fmt.Errorf("measured %d values after odd ones, want 1", n)
	}
	return nil
}

func takesConcurrentCalls(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	const callers, calls = 16, 25
	t := h.Telemetry(tb)
	run, endRun := t.Span(ctx, "run")
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls {
				stage, end := t.Span(run, "stage")
				t.Count(stage, "calls", 1, slog.String("by", "caller"))
				t.Measure(stage, "calls.seconds", 1)
				end(nil)
			}
		})
	}
	wg.Wait()
	endRun(nil)
	r := h.Recording(tb)
	want := int64(callers * calls)
	if got := int64(len(r.Find("stage"))); got != want {
		return fmt.Errorf("recorded %d spans of concurrent callers, want %d", got, want)
	}
	if got := r.Counted("calls"); got != want {
		return fmt.Errorf("counted %d calls of concurrent callers, want %d", got, want)
	}
	if got, _ := r.Measured("calls.seconds"); got != want {
		return fmt.Errorf("measured %d calls of concurrent callers, want %d", got, want)
	}
	return nil
}
