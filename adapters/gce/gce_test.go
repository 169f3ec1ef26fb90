package gce

import (
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
			"preempted":    "FALSE",
			"id":           "4520031799277581759",
			"zone":         "projects/111222/zones/us-central1-a",
			"machine-type": "projects/111222/machineTypes/n2-standard-4",
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

// harness preempts the instance.
type harness struct {
	*service
	source *Metadata
}

func (h harness) Source(testing.TB) interrupt.Source { return h.source }

func (h harness) Announce(testing.TB) string {
	h.set("preempted", "TRUE")
	return "the instance is preempted"
}

func TestConforms(t *testing.T) {
	interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		s := serve(tb)
		return harness{s, s.metadata(tb)}
	})
}

func TestPreemption(t *testing.T) {
	for _, tt := range []struct {
		name   string
		broken int
	}{{"the service works", 0}, {"the service fails for a while", 3}} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t)
			s.broken = tt.broken
			s.set("preempted", "TRUE")
			before := time.Now()
			n, err := s.metadata(t).Wait(t.Context())
			if left := n.Deadline.Sub(before); err != nil || left < 30*time.Second || left > time.Minute {
				t.Errorf("notice %+v, %v leaves %v", n, err, left)
			}
		})
	}
}

// A request that waits ends without news, and the next one has them.
func TestPreemptionAfterARequestTimesOut(t *testing.T) {
	s := serve(t)
	time.AfterFunc(1500*time.Millisecond, func() { s.set("preempted", "TRUE") })
	if n, err := s.metadata(t).Wait(t.Context()); err != nil || n.Cause != "the instance is preempted" {
		t.Errorf("notice %+v, %v", n, err)
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
