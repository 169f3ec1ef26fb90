// Package otel records telemetry with OpenTelemetry and sends it over OTLP, as
// the standard OTEL_ environment variables say. What cannot be sent in time is
// dropped: nothing here waits for the collector but the end of the process, and
// that for a bounded time.
package otel

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// scope names what instruments the worker, in spans and metrics.
const scope = "github.com/taskcluster/taskcluster-worker"

// Config says who sends the telemetry. Where it goes and how much of it is said
// by the environment, as everywhere in OpenTelemetry.
type Config struct {
	Service    string      // service.name, unless OTEL_SERVICE_NAME is set
	Version    string      // service.version
	Attributes []slog.Attr // of the resource, such as the worker pool; OTEL_RESOURCE_ATTRIBUTES has precedence

	// ShutdownTimeout bounds how long the end of the process waits until the
	// rest is sent. Zero means 2 seconds.
	ShutdownTimeout time.Duration
}

// New returns a telemetry as the environment says, and a function that sends
// what is left and releases what is held. Without an endpoint in the
// environment it is telemetry.Off. A value in the environment that means nothing
// is an error that names its variable. Whether the collector can be reached is
// not looked at: failures to send are logged, at most one a minute.
func New(ctx context.Context, cfg Config, log *slog.Logger) (telemetry.Telemetry, func(), error) {
	s, err := readSettings()
	if err != nil {
		return nil, nil, fmt.Errorf("configure telemetry: %w", err)
	}
	if !s.traces.on && !s.metrics.on {
		return telemetry.Off{}, func() {}, nil
	}
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("configure telemetry: %w", err)
	}
	if cfg.ShutdownTimeout <= 0 {
		cfg.ShutdownTimeout = 2 * time.Second
	}
	t := &recorder{
		tracer:      tracenoop.NewTracerProvider().Tracer(scope),
		instruments: instruments{meter: metricnoop.NewMeterProvider().Meter(scope)},
	}
	failures := &failures{log: log}
	t.instruments.failures = failures
	c := newCloser(cfg.ShutdownTimeout)
	if s.traces.on {
		exporter, release, err := newSpanExporter(ctx, s.traces)
		if err != nil {
			c.close()
			return nil, nil, fmt.Errorf("configure telemetry: traces: %w", err)
		}
		p := sdktrace.NewTracerProvider(
			sdktrace.WithResource(res),
			sdktrace.WithBatcher(&spanExporter{exporter, c.aborted, failures}),
		)
		c.add(p.Shutdown, release)
		t.tracer = p.Tracer(scope)
	}
	if s.metrics.on {
		exporter, release, err := newMetricExporter(ctx, s.metrics)
		if err != nil {
			c.close()
			return nil, nil, fmt.Errorf("configure telemetry: metrics: %w", err)
		}
		p := sdkmetric.NewMeterProvider(
			sdkmetric.WithResource(res),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&metricExporter{exporter, c.aborted, failures})),
		)
		c.add(p.Shutdown, release)
		t.instruments.meter = p.Meter(scope)
	}
	return t, c.close, nil
}

// newResource describes the worker. Later options have precedence.
func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{attribute.String("service.name", text(cfg.Service))}
	if cfg.Version != "" {
		attrs = append(attrs, attribute.String("service.version", text(cfg.Version)))
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(append(attrs, attributes(cfg.Attributes)...)...),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("describe the worker: %w", err)
	}
	return res, nil
}

// recorder is a telemetry that records into memory, from where OpenTelemetry's
// goroutines send it.
type recorder struct {
	tracer      trace.Tracer
	instruments instruments
}

// Span implements telemetry.Telemetry.
func (r *recorder) Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
	ctx, span := r.tracer.Start(ctx, text(name))
	if !span.IsRecording() {
		return ctx, func(error) { span.End() }
	}
	span.SetAttributes(attributes(attrs)...)
	return ctx, func(err error) {
		if err != nil {
			// Not RecordError, which takes the text as it is.
			message := text(fmt.Sprint(err))
			span.AddEvent("exception", trace.WithAttributes(
				attribute.String("exception.type", fmt.Sprintf("%T", err)),
				attribute.String("exception.message", message),
			))
			span.SetStatus(codes.Error, message)
		}
		span.End()
	}
}

// Count implements telemetry.Telemetry.
func (r *recorder) Count(ctx context.Context, name string, n int64, attrs ...slog.Attr) {
	// A counter that goes back is read as one that has started anew.
	if c := r.instruments.counter(ctx, name); c != nil && n > 0 {
		c.Add(ctx, n, metric.WithAttributes(attributes(attrs)...))
	}
}

// Measure implements telemetry.Telemetry.
func (r *recorder) Measure(ctx context.Context, name string, value float64, attrs ...slog.Attr) {
	if h := r.instruments.histogram(ctx, name); h != nil && finite(value) {
		h.Record(ctx, value, metric.WithAttributes(attributes(attrs)...))
	}
}

// Parent implements telemetry.Telemetry.
func (r *recorder) Parent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	header := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, header)
	return header.Get("traceparent")
}

// closer ends what sends telemetry, all of it at the same time.
type closer struct {
	timeout   time.Duration
	aborted   context.Context //nolint:containedctx // ends when sending is given up
	abort     context.CancelFunc
	shutdowns []func(context.Context) error
	releases  []func()
	once      sync.Once
}

func newCloser(timeout time.Duration) *closer {
	c := &closer{timeout: timeout}
	c.aborted, c.abort = context.WithCancel(context.Background())
	return c
}

func (c *closer) add(shutdown func(context.Context) error, release func()) {
	c.shutdowns = append(c.shutdowns, shutdown)
	c.releases = append(c.releases, release)
}

// close sends what is left. Sending is given up early enough for the goroutines
// that do it to end within the timeout too.
func (c *closer) close() {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		defer cancel()
		defer c.abort()
		patience := time.AfterFunc(c.timeout*3/4, c.abort)
		defer patience.Stop()
		var wg sync.WaitGroup
		for _, shutdown := range c.shutdowns {
			wg.Go(func() {
				// What could not be sent has been logged by the exporter.
				_ = shutdown(ctx)
			})
		}
		wg.Wait()
		for _, release := range c.releases {
			release()
		}
	})
}
