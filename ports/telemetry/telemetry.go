// Package telemetry is the port through which a worker is observed.
package telemetry

import (
	"context"
	"log/slog"
)

// Telemetry records what a worker does. Its methods never fail and never block,
// and are safe for concurrent use.
type Telemetry interface {
	// Span starts a span as a child of the one in ctx, if any, and returns a
	// context that carries it. The returned function ends the span with the
	// error of the operation and must be called once.
	Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error))

	// Count adds n to a counter.
	Count(ctx context.Context, name string, n int64, attrs ...slog.Attr)

	// Measure records a value in a histogram, in the unit the name ends in,
	// such as ".seconds".
	Measure(ctx context.Context, name string, value float64, attrs ...slog.Attr)

	// Parent returns the span in ctx as a W3C traceparent header, for a
	// process that is to continue the trace, or "" if nothing is recorded.
	Parent(ctx context.Context) string
}

// Off is a Telemetry that records nothing, at no cost.
type Off struct{}

// Span implements Telemetry.
func (Off) Span(ctx context.Context, _ string, _ ...slog.Attr) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// Count implements Telemetry.
func (Off) Count(context.Context, string, int64, ...slog.Attr) {}

// Measure implements Telemetry.
func (Off) Measure(context.Context, string, float64, ...slog.Attr) {}

// Parent implements Telemetry.
func (Off) Parent(context.Context) string { return "" }
