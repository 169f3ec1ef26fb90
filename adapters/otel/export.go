package otel

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// newSpanExporter returns an exporter that reads the rest of its configuration
// from the environment, and a function to call after its shutdown.
func newSpanExporter(ctx context.Context, s signal) (sdktrace.SpanExporter, func(), error) {
	if s.protocol == protocolGRPC {
		e, err := otlptracegrpc.New(ctx)
		return e, func() {}, err
	}
	client := newHTTPClient(s)
	e, err := otlptracehttp.New(ctx, otlptracehttp.WithHTTPClient(client))
	return e, client.CloseIdleConnections, err
}

// newMetricExporter is as newSpanExporter.
func newMetricExporter(ctx context.Context, s signal) (sdkmetric.Exporter, func(), error) {
	if s.protocol == protocolGRPC {
		e, err := otlpmetricgrpc.New(ctx)
		return e, func() {}, err
	}
	client := newHTTPClient(s)
	e, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithHTTPClient(client))
	return e, client.CloseIdleConnections, err
}

// newHTTPClient returns a client with connections of its own. That of the
// exporters is shared by the process and cannot be closed.
func newHTTPClient(s signal) *http.Client {
	return &http.Client{
		Timeout: s.timeout,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     s.tls,
			TLSHandshakeTimeout: s.timeout,
			ForceAttemptHTTP2:   true,
			MaxIdleConns:        2,
			IdleConnTimeout:     s.timeout * 9,
		},
	}
}

// spanExporter logs failures, which would otherwise go to the error handler
// that OpenTelemetry has for the whole process, and stops when told to: the
// goroutines that call it give it contexts that only time ends.
type spanExporter struct {
	sdktrace.SpanExporter
	aborted  context.Context //nolint:containedctx // ends when sending is given up
	failures *failures
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := until(ctx, e.aborted)
	defer cancel()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failures.report(ctx, "spans", err)
	}
	return nil
}

// metricExporter is to metrics what spanExporter is to spans.
type metricExporter struct {
	sdkmetric.Exporter
	aborted  context.Context //nolint:containedctx // ends when sending is given up
	failures *failures
}

// Export implements sdkmetric.Exporter.
func (e *metricExporter) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	ctx, cancel := until(ctx, e.aborted)
	defer cancel()
	if err := e.Exporter.Export(ctx, metrics); err != nil {
		e.failures.report(ctx, "metrics", err)
	}
	return nil
}

// until returns a context that ends with either of two.
func until(ctx, aborted context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(aborted, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
