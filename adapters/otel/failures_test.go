package otel

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailuresAreLoggedAtMostOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &failures{log: slog.New(slog.NewTextHandler(&log, nil))}
		// Every 20 seconds for 2 minutes: at 0:00, 1:00 and 2:00.
		for range 7 {
			f.report(t.Context(), "spans", errors.New("no collector"))
			<-time.After(20 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if got, want := len(lines), 3; got != want {
			t.Fatalf("logged %d lines, want %d:\n%s", got, want, &log)
		}
		for i, want := range []string{"notLogged=0", "notLogged=2", "notLogged=2"} {
			if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], `error="no collector"`) {
				t.Errorf("line %d is %q, want %s", i+1, lines[i], want)
			}
		}
	})
}

// A collector that refuses is logged, and so are its reasons. The headers of
// the environment are on every request.
func TestRefusalIsLogged(t *testing.T) {
	clearEnvironment(t)
	var requests, withoutKey atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Api-Key") != "a b" {
			withoutKey.Add(1)
		}
		http.Error(w, "quota of the team is used up", http.StatusForbidden)
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b")
	var log bytes.Buffer
	tel, closeTelemetry, err := New(t.Context(), Config{Service: "worker"}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	_, end := tel.Span(t.Context(), "run")
	end(nil)
	tel.Count(t.Context(), "tasks", 1)
	closeTelemetry()
	if got := requests.Load(); got != 2 {
		t.Errorf("sent %d requests, want one of spans and one of metrics", got)
	}
	if got := withoutKey.Load(); got != 0 {
		t.Errorf("sent %d requests without the configured header", got)
	}
	if got := strings.Count(log.String(), "quota of the team is used up"); got != 1 {
		t.Errorf("the reason is logged %d times, want once:\n%s", got, &log)
	}
}

// What a sampler leaves out costs little, and no child continues it.
func TestSampledOut(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"+freeAddress(t))
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	var log bytes.Buffer
	tel, closeTelemetry, err := New(t.Context(), Config{Service: "worker"}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := tel.Span(t.Context(), "run", slog.String("task.id", "a"))
	if got := tel.Parent(ctx); got != "" {
		t.Errorf("parent is %q, want none", got)
	}
	end(errors.New("failed"))
	tel.Count(ctx, "tasks", 1)
	tel.Measure(ctx, "stage.seconds", 1)
	closeTelemetry()
	if log.Len() > 0 {
		t.Errorf("something was to be sent:\n%s", &log)
	}
}
