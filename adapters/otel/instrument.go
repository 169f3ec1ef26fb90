package otel

import (
	"context"
	"math"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/metric"
)

// instruments makes counters and histograms when they are first used.
type instruments struct {
	meter      metric.Meter
	failures   *failures
	counters   sync.Map // of metric.Int64Counter by name, nil for names that cannot be
	histograms sync.Map // of metric.Float64Histogram by name, nil likewise
}

// counter returns a counter, or nil if there can be none of that name.
func (i *instruments) counter(ctx context.Context, name string) metric.Int64Counter {
	if v, ok := i.counters.Load(name); ok {
		c, _ := v.(metric.Int64Counter)
		return c
	}
	c, err := i.meter.Int64Counter(name)
	if err != nil {
		i.failures.report(ctx, "counter", err)
		i.counters.Store(name, nil)
		return nil
	}
	i.counters.Store(name, c)
	return c
}

// histogram returns a histogram, or nil if there can be none of that name.
func (i *instruments) histogram(ctx context.Context, name string) metric.Float64Histogram {
	if v, ok := i.histograms.Load(name); ok {
		h, _ := v.(metric.Float64Histogram)
		return h
	}
	h, err := i.meter.Float64Histogram(name, histogramOptions(name)...)
	if err != nil {
		i.failures.report(ctx, "histogram", err)
		i.histograms.Store(name, nil)
		return nil
	}
	i.histograms.Store(name, h)
	return h
}

// histogramOptions returns unit and buckets for the unit that a name ends in.
func histogramOptions(name string) []metric.Float64HistogramOption {
	switch {
	case strings.HasSuffix(name, ".seconds"):
		// From an API call to the longest task.
		return []metric.Float64HistogramOption{metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(
			0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400,
		)}
	case strings.HasSuffix(name, ".bytes"):
		// From 1 KiB to 64 GiB.
		bounds := make([]float64, 0, 14)
		for b := 1 << 10; b <= 1<<36; b <<= 2 {
			bounds = append(bounds, float64(b))
		}
		return []metric.Float64HistogramOption{metric.WithUnit("By"), metric.WithExplicitBucketBoundaries(bounds...)}
	default:
		return nil
	}
}

// finite reports whether value can be part of a sum.
func finite(value float64) bool { return !math.IsNaN(value) && !math.IsInf(value, 0) }
