package telemetrytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"testing"
)

var errFailed = errors.New("it went wrong")

func nestsSpans(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	run, endRun := t.Span(ctx, "run")
	building, endBuilding := t.Span(run, "building")
	_, endPull := t.Span(building, "pull")
	endPull(nil)
	endBuilding(nil)
	_, endRunning := t.Span(run, "running")
	endRunning(nil)
	endRun(nil)
	want := "run\n\tbuilding\n\t\tpull\n\trunning\n"
	if got := h.Recording(tb).Tree(); got != want {
		return fmt.Errorf("spans are\n%swant\n%s", got, want)
	}
	return nil
}

// A span belongs to the trace of its context only, whatever else is open.
func keepsTracesApart(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	first, endFirst := t.Span(ctx, "first")
	second, endSecond := t.Span(ctx, "second")
	_, end := t.Span(first, "below first")
	end(nil)
	_, end = t.Span(second, "below second")
	end(nil)
	endFirst(nil)
	endSecond(nil)
	want := "first\n\tbelow first\nsecond\n\tbelow second\n"
	if got := h.Recording(tb).Tree(); got != want {
		return fmt.Errorf("spans are\n%swant\n%s", got, want)
	}
	return nil
}

func derivesContext(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	type key struct{}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, key{}, "value"))
	defer cancel(nil)
	got, end := h.Telemetry(tb).Span(ctx, "run")
	defer end(nil)
	if v := got.Value(key{}); v != "value" {
		return fmt.Errorf("context of the span has value %v, want that of the context given", v)
	}
	if err := got.Err(); err != nil {
		return fmt.Errorf("context of the span is done: %w", err)
	}
	cancel(errFailed)
	if got.Err() == nil || !errors.Is(context.Cause(got), errFailed) {
		return fmt.Errorf("context of the span was ended by %q, want %q", fmt.Sprint(context.Cause(got)), errFailed.Error())
	}
	return nil
}

func recordsErrors(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	run, endRun := t.Span(ctx, "run")
	_, endBuilding := t.Span(run, "building")
	endBuilding(errFailed)
	endRun(nil)
	want := "run\n\tbuilding: it went wrong\n"
	if got := h.Recording(tb).Tree(); got != want {
		return fmt.Errorf("spans are\n%swant\n%s", got, want)
	}
	return nil
}

func recordsAttributes(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	attrs := []slog.Attr{
		slog.String("task", "fN1SbArXTPSVFNUvaOlinQ"),
		slog.Int("attempt", 3),
		slog.Float64("share", 0.5),
		slog.Bool("cached", true),
		slog.Group("image", slog.String("name", "busybox"), slog.Int("layers", 2)),
	}
	_, end := h.Telemetry(tb).Span(ctx, "pull", attrs...)
	end(nil)
	spans := h.Recording(tb).Find("pull")
	if len(spans) != 1 {
		return fmt.Errorf("recorded %d spans, want 1", len(spans))
	}
	if got, want := spans[0].Attrs.key(), NewAttrs(attrs...).key(); got != want {
		return fmt.Errorf("attributes are %s, want %s", got, want)
	}
	return nil
}

// What happens while a run is being canceled is what one wants to see most.
func recordsWhenCanceled(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	ctx, cancel := context.WithCancel(ctx)
	run, endRun := t.Span(ctx, "run")
	cancel()
	_, endAbort := t.Span(run, "abort")
	endAbort(nil)
	endRun(context.Canceled)
	t.Count(run, "tasks", 1)
	t.Measure(run, "stage.seconds", 2)
	r := h.Recording(tb)
	want := "run: context canceled\n\tabort\n"
	if got := r.Tree(); got != want {
		return fmt.Errorf("spans are\n%swant\n%s", got, want)
	}
	if got := r.Counted("tasks"); got != 1 {
		return fmt.Errorf("counted %d, want 1", got)
	}
	if n, _ := r.Measured("stage.seconds"); n != 1 {
		return fmt.Errorf("measured %d values, want 1", n)
	}
	return nil
}

func tellsParent(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	t := h.Telemetry(tb)
	run, endRun := t.Span(ctx, "run")
	defer endRun(nil)
	stage, endStage := t.Span(run, "building")
	defer endStage(nil)
	other, endOther := t.Span(ctx, "run")
	defer endOther(nil)

	// Version, trace and span as of https://www.w3.org/TR/trace-context/, with
	// the flag that says that the trace is recorded.
	header := regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-01$`)
	var ids [][]string
	for _, c := range []context.Context{run, stage, other} {
		id := header.FindStringSubmatch(t.Parent(c))
		if id == nil {
			return fmt.Errorf("parent is %q, want a W3C traceparent", t.Parent(c))
		}
		ids = append(ids, id)
	}
	switch {
	case ids[0][1] != ids[1][1]:
		return fmt.Errorf("a span and its child are of traces %s and %s, want one", ids[0][1], ids[1][1])
	case ids[0][1] == ids[2][1]:
		return fmt.Errorf("two roots are of one trace, %s", ids[0][1])
	case ids[0][2] == ids[1][2]:
		return fmt.Errorf("a span and its child are both %s", ids[0][2])
	}
	return nil
}

func tellsNoParent(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if got := h.Telemetry(tb).Parent(ctx); got != "" {
		return fmt.Errorf("parent outside of any span is %q, want none", got)
	}
	return nil
}
