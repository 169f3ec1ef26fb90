package otel

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

const endpoint = "http://localhost:4318"

func TestOffUnlessAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
	}{
		{"nothing is set", nil},
		{"there is no endpoint", map[string]string{"OTEL_SERVICE_NAME": "worker", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		{"the endpoint is empty", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}},
		{"the SDK is disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SDK_DISABLED": "True"}},
		{"there are no exporters", map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnvironment(t, tt.env)
			tel, closeTelemetry, err := New(t.Context(), Config{Service: "worker"}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			closeTelemetry()
			if _, off := tel.(telemetry.Off); !off {
				t.Errorf("telemetry is %T, want telemetry.Off", tel)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		want settings
	}{
		{
			"one endpoint is for all signals",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
			settings{signal{true, protocolHTTP, 10 * time.Second, nil}, signal{true, protocolHTTP, 10 * time.Second, nil}},
		},
		{
			"an endpoint may be for one signal only",
			map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint},
			settings{metrics: signal{true, protocolHTTP, 10 * time.Second, nil}},
		},
		{
			"what is said of one signal has precedence",
			map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces.example.com:4317",
				"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": " grpc ",
				"OTEL_EXPORTER_OTLP_TIMEOUT": "3000", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "250",
			},
			settings{signal{true, protocolGRPC, 250 * time.Millisecond, nil}, signal{true, protocolHTTP, 3 * time.Second, nil}},
		},
		{
			"a signal may be off",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none"},
			settings{traces: signal{true, protocolHTTP, 10 * time.Second, nil}},
		},
		{
			"all that is known is taken",
			map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b,x-team=ci",
				"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_INSECURE": "true",
				"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
				"OTEL_RESOURCE_ATTRIBUTES": "a=b,c=%C3%A4", "OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_SDK_DISABLED": "false",
			},
			settings{signal{true, protocolHTTP, 10 * time.Second, nil}, signal{true, protocolHTTP, 10 * time.Second, nil}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnvironment(t, tt.env)
			got, err := readSettings()
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("settings are %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A mistake is an error that names the variable, and no secret.
func TestMistakesNameTheirVariable(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ variable, value string }{
		{"OTEL_SDK_DISABLED", "yes"},
		{"OTEL_TRACES_EXPORTER", "console"},
		{"OTEL_METRICS_EXPORTER", "prometheus"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http//localhost:4318"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://localhost"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://local host"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:hunter2@localhost"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "gprc"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
		{"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"},
		{"OTEL_EXPORTER_OTLP_INSECURE", "1"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "hunter2"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=a,api key=hunter2"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2%"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2%0Ax: y"},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", notPEM + ".not"},
		{"OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", notPEM},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY", notPEM},
		{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "detla"},
		{"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "exponential"},
		{"OTEL_TRACES_SAMPLER", "alwayson"},
		{"OTEL_TRACES_SAMPLER_ARG", "25%"},
		{"OTEL_TRACES_SAMPLER_ARG", "NaN"},
		{"OTEL_RESOURCE_ATTRIBUTES", "a=b,c"},
		{"OTEL_RESOURCE_ATTRIBUTES", "a=%ff"},
		{"OTEL_SERVICE_NAME", "worker\xff"},
		{"OTEL_BSP_SCHEDULE_DELAY", "5s"},
		{"OTEL_BSP_MAX_QUEUE_SIZE", "-1"},
		{"OTEL_METRIC_EXPORT_INTERVAL", "99999999999"},
	} {
		t.Run(tt.variable+"="+tt.value, func(t *testing.T) {
			setEnvironment(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
			t.Setenv(tt.variable, tt.value)
			_, _, err := New(t.Context(), Config{Service: "worker"}, slog.New(slog.DiscardHandler))
			if err == nil {
				t.Fatal("the value is taken")
			}
			if !strings.Contains(err.Error(), tt.variable) {
				t.Errorf("error is %q, want it to name %s", err, tt.variable)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q tells a secret", err)
			}
		})
	}
}

func setEnvironment(t *testing.T, env map[string]string) {
	t.Helper()
	clearEnvironment(t)
	for k, v := range env {
		t.Setenv(k, v)
	}
}

func FuzzPairs(f *testing.F) {
	for _, s := range []string{"a=b", "a=b,c=%C3%A4", "=", ",", "a=%ff", "a==b", " a = b "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pairs, err := parsePairs(s)
		if (len(pairs) == 0) == (err == nil) {
			t.Fatalf("parsed %q as %v, %v: want either pairs or an error", s, pairs, err)
		}
		for k := range pairs {
			if k == "" || strings.ContainsAny(k, ",=") {
				t.Errorf("parsed a key %q from %q", k, s)
			}
		}
	})
}
