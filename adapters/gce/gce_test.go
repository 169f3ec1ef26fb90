package gce

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers as the documentation of the metadata service says.
type service struct {
	url string

	mu      sync.Mutex
	values  map[string]string // by path
	version int
	changed chan struct{} // closed by the next change
	broken  int           // so many requests fail
}

func serve(tb testing.TB) *service {
	tb.Helper()
	s := &service{
		changed: make(chan struct{}),
		values: map[string]string{
			"preempted":         "FALSE",
			"maintenance-event": "NONE",
			"id":                "4520031799277581759",
			"zone":              "projects/111222/zones/us-central1-a",
			"machine-type":      "projects/111222/machineTypes/n2-standard-4",
			"network-interfaces/0/access-configs/0/external-ip": "203.0.113.7",
			"attributes/taskcluster":                            `{"workerPoolId":"proj/linux","providerId":"gcp","workerGroup":"us-central1-a","rootUrl":"https://tc.example.com","workerConfig":{}}`,
		},
	}
	server := httptest.NewServer(s)
	s.url = server.URL
	tb.Cleanup(server.Close)
	return s
}

func (s *service) set(path, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[path] = value
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/")
	if !ok || r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
		return
	}
	query := r.URL.Query()
	s.mu.Lock()
	if s.broken > 0 {
		s.broken--
		s.mu.Unlock()
		http.Error(w, "The service is restarted.", http.StatusServiceUnavailable)
		return
	}
	if query.Get("wait_for_change") == "true" && query.Get("last_etag") == s.etag() {
		changed := s.changed
		s.mu.Unlock()
		timeout, err := time.ParseDuration(query.Get("timeout_sec") + "s")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-changed:
		case <-time.After(timeout):
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
	value, ok := s.values[at]
	etag := s.etag()
	s.mu.Unlock()
	if at == "service-accounts/default/identity" {
		value, ok = "token for "+query.Get("audience")+" "+query.Get("format"), true
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Metadata-Flavor", "Google")
	w.Header().Set("ETag", etag)
	_, _ = io.WriteString(w, value)
}

func (s *service) etag() string { return fmt.Sprintf("%016x", s.version) }

func (s *service) metadata(tb testing.TB) *Metadata {
	tb.Helper()
	m, shut := New(Config{URL: s.url, Poll: time.Second, Pause: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
	tb.Cleanup(shut)
	return m
}

// harness has something of the instance change.
type harness struct {
	*service
	source             interrupt.Source
	path, value, cause string
}

func (h harness) Source(testing.TB) interrupt.Source { return h.source }

func (h harness) Announce(testing.TB) string {
	h.set(h.path, h.value)
	return h.cause
}

func TestConforms(t *testing.T) {
	t.Run("preemption", func(t *testing.T) {
		interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
			tb.Helper()
			s := serve(tb)
			return harness{s, s.metadata(tb).Preemption(), "preempted", "TRUE", "the instance is preempted"}
		})
	})
	t.Run("maintenance", func(t *testing.T) {
		interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
			tb.Helper()
			s := serve(tb)
			return harness{
				s, s.metadata(tb).Maintenance(), "maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE",
				"the instance is stopped for its host's maintenance",
			}
		})
	})
}

func TestDeadlines(t *testing.T) {
	for _, tt := range []struct {
		path, value string
		source      func(*Metadata) interrupt.Source
		left        time.Duration
	}{
		{"preempted", "TRUE", (*Metadata).Preemption, 30 * time.Second},
		{"maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", (*Metadata).Maintenance, time.Hour},
	} {
		for _, broken := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s, after %d requests that fail", tt.path, broken), func(t *testing.T) {
				s := serve(t)
				s.broken = broken
				s.set(tt.path, tt.value)
				before := time.Now()
				n, err := tt.source(s.metadata(t)).Wait(t.Context())
				if left := n.Deadline.Sub(before); err != nil || left < tt.left || left > tt.left+30*time.Second {
					t.Errorf("notice %+v, %v leaves %v", n, err, left)
				}
			})
		}
	}
}

// A service that is away is told of once, however often it is asked meanwhile.
func TestServiceThatFailsDoesNotFillTheLog(t *testing.T) {
	s := serve(t)
	s.broken = 5
	s.set("preempted", "TRUE")
	var log bytes.Buffer
	m, shut := New(Config{URL: s.url, Poll: time.Second, Pause: time.Millisecond}, slog.New(slog.NewTextHandler(&log, nil)))
	defer shut()
	if _, err := m.Preemption().Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "\n"); got != 1 {
		t.Errorf("%d lines:\n%s", got, &log)
	}
}

// A request that waits ends without news, and the next one has them. What
// changes first is of no interest.
func TestNewsAfterARequestTimesOut(t *testing.T) {
	s := serve(t)
	time.AfterFunc(200*time.Millisecond, func() { s.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE") })
	time.AfterFunc(1500*time.Millisecond, func() { s.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE") })
	if _, err := s.metadata(t).Maintenance().Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestInstance(t *testing.T) {
	s := serve(t)
	want := Instance{
		ID: "4520031799277581759", Zone: "us-central1-a", Region: "us-central1", Type: "n2-standard-4", PublicIP: "203.0.113.7",
		RootURL: "https://tc.example.com", ProviderID: "gcp", Pool: "proj/linux", Group: "us-central1-a",
	}
	got, err := s.metadata(t).Instance(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, instance (-want +got):\n%s", err, diff)
	}
	delete(s.values, "network-interfaces/0/access-configs/0/external-ip")
	want.PublicIP = ""
	got, err = s.metadata(t).Instance(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("without an address, %v, instance (-want +got):\n%s", err, diff)
	}
	for attribute, want := range map[string]string{"{": "attribute", "": "worker-manager has not created it"} {
		s.set("attributes/taskcluster", attribute)
		if attribute == "" {
			delete(s.values, "attributes/taskcluster")
		}
		if _, err := s.metadata(t).Instance(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("attribute %q: %v", attribute, err)
		}
	}
}

func TestToken(t *testing.T) {
	got, err := serve(t).metadata(t).Token(t.Context(), "https://tc.example.com")
	if want := "token for https://tc.example.com full"; got != want || err != nil {
		t.Errorf("token is %q, %v; want %q", got, err, want)
	}
}
