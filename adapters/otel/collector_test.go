package otel

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry/telemetrytest"
)

// collector is a running OpenTelemetry collector.
type collector struct {
	process    *os.Process
	grpc, http string // endpoints
	output     string // file with a line of JSON for each request
}

// startCollector starts a collector that ends with the test.
func startCollector(tb testing.TB) *collector {
	tb.Helper()
	binary, err := filepath.Abs("../../.bin/peers/otelcol")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		tb.Fatalf("the collector is missing, build it with make collector: %v", err)
	}
	dir := tb.TempDir()
	c := &collector{output: filepath.Join(dir, "received.json")}
	grpc, http := freeAddress(tb), freeAddress(tb)
	c.grpc, c.http = "http://"+grpc, "http://"+http
	config := filepath.Join(dir, "otelcol.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
receivers:
  otlp: {protocols: {grpc: {endpoint: %q}, http: {endpoint: %q}}}
exporters:
  file: {path: %q, flush_interval: 10ms}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file]}
`, grpc, http, c.output), 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(binary, "--config", config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c.process = cmd.Process
	ready, ended := make(chan struct{}), make(chan struct{})
	var log bytes.Buffer
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for isReady := false; lines.Scan(); {
			if !isReady && bytes.Contains(lines.Bytes(), []byte("Everything is ready")) {
				isReady = true
				close(ready)
			}
			log.Write(append(lines.Bytes(), '\n'))
		}
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // also if it is stopped
		<-ended
		_ = cmd.Wait()
		if tb.Failed() {
			tb.Logf("collector:\n%s", &log)
		}
	})
	select {
	case <-ready:
	case <-ended:
		tb.Fatal("the collector has ended")
	case <-time.After(30 * time.Second):
		tb.Fatal("the collector is not ready")
	}
	return c
}

// freeAddress returns a loopback address that nothing listens on.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// received is what a collector has received from one sender.
type received struct {
	resource telemetrytest.Attrs
	spans    []*tracepb.Span
	metrics  []*metricspb.Metric
}

// received reads what has come so far from senders whose resource has that
// value of the attribute "sender".
func (c *collector) received(tb testing.TB, sender string) received {
	tb.Helper()
	content, err := os.ReadFile(c.output)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	var r received
	isOf := func(res *resourcepb.Resource) bool {
		attrs := attrsOf(res.GetAttributes())
		if attrs["sender"] != sender {
			return false
		}
		r.resource = attrs
		return true
	}
	for line := range bytes.Lines(content) {
		if !json.Valid(line) {
			break // still being written
		}
		// Identifiers are hexadecimal in OTLP's JSON. What protojson makes of
		// them is something else, but still the same for the same ones.
		parse := protojson.UnmarshalOptions{DiscardUnknown: true}
		var traces tracepb.TracesData
		var metrics metricspb.MetricsData
		if err := errors.Join(parse.Unmarshal(line, &traces), parse.Unmarshal(line, &metrics)); err != nil {
			tb.Fatal(err)
		}
		for _, rs := range traces.GetResourceSpans() {
			if isOf(rs.GetResource()) {
				for _, ss := range rs.GetScopeSpans() {
					r.spans = append(r.spans, ss.GetSpans()...)
				}
			}
		}
		for _, rm := range metrics.GetResourceMetrics() {
			if isOf(rm.GetResource()) {
				for _, sm := range rm.GetScopeMetrics() {
					r.metrics = append(r.metrics, sm.GetMetrics()...)
				}
			}
		}
	}
	return r
}

// await waits until enough has come from a sender.
func (c *collector) await(tb testing.TB, sender string, enough func(received) bool) received {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		if r := c.received(tb, sender); enough(r) {
			return r
		}
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("the collector has not received all of %s", sender)
		}
	}
}

// recording returns what has been received in the terms of the port.
func (r received) recording() telemetrytest.Recording {
	slices.SortStableFunc(r.spans, func(a, b *tracepb.Span) int {
		return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano())
	})
	children := map[string][]*tracepb.Span{}
	for _, s := range r.spans {
		parent := string(s.GetParentSpanId())
		if parent != "" {
			parent = string(s.GetTraceId()) + parent
		}
		children[parent] = append(children[parent], s)
	}
	var below func(string) []telemetrytest.Span
	below = func(parent string) []telemetrytest.Span {
		var spans []telemetrytest.Span
		for _, s := range children[parent] {
			one := telemetrytest.Span{
				Name:     s.GetName(),
				Attrs:    attrsOf(s.GetAttributes()),
				Ended:    s.GetEndTimeUnixNano() >= s.GetStartTimeUnixNano(),
				Children: below(string(s.GetTraceId()) + string(s.GetSpanId())),
			}
			if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
				one.Err = errors.New(s.GetStatus().GetMessage())
			}
			spans = append(spans, one)
		}
		return spans
	}
	recording := telemetrytest.Recording{Spans: below("")}
	for _, m := range r.metrics {
		for _, p := range m.GetSum().GetDataPoints() {
			recording.Counts = append(recording.Counts, telemetrytest.Count{
				Name: m.GetName(), Attrs: attrsOf(p.GetAttributes()), Sum: p.GetAsInt(),
			})
		}
		for _, p := range m.GetHistogram().GetDataPoints() {
			recording.Measures = append(recording.Measures, telemetrytest.Measure{
				Name: m.GetName(), Attrs: attrsOf(p.GetAttributes()), N: int64(p.GetCount()), Sum: p.GetSum(),
			})
		}
	}
	return recording
}

func attrsOf(kvs []*commonpb.KeyValue) telemetrytest.Attrs {
	attrs := telemetrytest.Attrs{}
	for _, kv := range kvs {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			attrs[kv.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			attrs[kv.GetKey()] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			attrs[kv.GetKey()] = v.DoubleValue
		case *commonpb.AnyValue_BoolValue:
			attrs[kv.GetKey()] = v.BoolValue
		default:
			attrs[kv.GetKey()] = v
		}
	}
	return attrs
}

// clearEnvironment unsets all of OpenTelemetry's variables for the test.
func clearEnvironment(tb testing.TB) {
	tb.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			tb.Setenv(name, "")
		}
	}
}
