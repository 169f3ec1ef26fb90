package azure

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

// reboot is an event as the documentation shows it.
const reboot = `{
  "DocumentIncarnation": 2,
  "Events": [{
    "EventId": "4CAEA225-A741-474D-A72E-428C86FCD853",
    "EventStatus": "Scheduled",
    "EventType": "Reboot",
    "ResourceType": "VirtualMachine",
    "Resources": ["vm1"],
    "NotBefore": "Thu, 22 Jul 2021 04:50:17 GMT",
    "Description": "",
    "EventSource": "User",
    "DurationInSeconds": -1
  }]
}`

// instance is the part that matters of what the documentation shows, with the
// tags that worker-manager makes.
const instance = `{
  "compute": {
    "name": "vm1", "location": "westus", "zone": "1", "vmSize": "Standard_F8s_v2", "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
    "tagsList": [
      {"name": "created-by", "value": "taskcluster"}, {"name": "root-url", "value": "https://tc.example.com"},
      {"name": "provider-id", "value": "azure"}, {"name": "worker-pool-id", "value": "proj/linux"}, {"name": "worker-group", "value": "westus"}
    ]
  },
  "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.0.0.4", "publicIpAddress": "203.0.113.7"}]}, "macAddress": "000D3AF806EC"}]}
}`

// service answers as the documentation of the metadata service says.
type service struct {
	url string

	mu     sync.Mutex
	values map[string]string // by path and version
	broken int               // so many requests fail
}

func serve(tb testing.TB) *service {
	tb.Helper()
	s := &service{values: map[string]string{
		"/metadata/scheduledevents 2020-07-01":       `{"DocumentIncarnation": 1, "Events": []}`,
		"/metadata/instance/compute/name 2020-09-01": "vm1",
		"/metadata/instance 2020-09-01":              instance,
		"/metadata/attested/document 2020-09-01":     `{"encoding":"pkcs7","signature":"MIIEEgYJKoZIhvcNAQcCoIIEAzCCA/8="}`,
	}}
	server := httptest.NewServer(s)
	s.url = server.URL
	tb.Cleanup(server.Close)
	return s
}

func (s *service) set(at, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[at] = value
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" {
		http.Error(w, `{"error": "Bad request. Required metadata header not specified"}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken > 0 {
		s.broken--
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	value, ok := s.values[r.URL.Path+" "+r.URL.Query().Get("api-version")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, value)
}

func (s *service) metadata(tb testing.TB) *Metadata {
	tb.Helper()
	m, shut := New(Config{URL: s.url, Every: 5 * time.Millisecond, Pause: time.Millisecond}, slog.New(slog.DiscardHandler))
	tb.Cleanup(shut)
	return m
}

// schedule returns a document of events of this machine and another one.
func schedule(types ...string) string {
	var events []string
	for i, t := range types {
		at := time.Now().Add(time.Duration(10-i) * time.Minute).UTC().Format(http.TimeFormat)
		events = append(
			events,
			fmt.Sprintf(`{"EventId":"%d","EventStatus":"Scheduled","EventType":%q,"Resources":["vm0","vm1"],"NotBefore":%q}`, i, t, at),
			fmt.Sprintf(`{"EventId":"other-%d","EventStatus":"Scheduled","EventType":"Terminate","Resources":["vm2"],"NotBefore":%q}`, i, at),
		)
	}
	return `{"DocumentIncarnation": 7, "Events": [` + strings.Join(events, ",") + `]}`
}

// harness schedules a redeployment, and then, before that is due, preemption.
type harness struct {
	*service
	source *Metadata
	types  []string
}

func (h *harness) Source(testing.TB) interrupt.Source { return h.source }

func (h *harness) Announce(testing.TB) string {
	h.types = append(h.types, []string{"Redeploy", "Preempt"}[len(h.types)])
	h.set("/metadata/scheduledevents 2020-07-01", schedule(h.types...))
	return "Azure: " + h.types[len(h.types)-1]
}

func TestConforms(t *testing.T) {
	interrupttest.Test(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		s := serve(tb)
		return &harness{service: s, source: s.metadata(tb)}
	})
}

func TestScheduledEvents(t *testing.T) {
	now := time.Date(2021, 7, 22, 4, 36, 0, 0, time.UTC)
	due := time.Date(2021, 7, 22, 4, 50, 17, 0, time.UTC)
	for _, tt := range []struct {
		name, document string
		deadlines      []time.Time
	}{
		{"as documented", reboot, []time.Time{due}},
		{"started", strings.NewReplacer("Thu, 22 Jul 2021 04:50:17 GMT", "", "Scheduled", "Started").Replace(reboot), []time.Time{now}},
		{"of another machine", strings.ReplaceAll(reboot, "vm1", "vm2"), nil},
		{"that freeze it", strings.ReplaceAll(reboot, "Reboot", "Freeze"), nil},
		{"none", `{"DocumentIncarnation":1,"Events":[]}`, nil},
		{"nothing", `{}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := eventsOf("vm1", []byte(tt.document), now)
			if err != nil {
				t.Fatal(err)
			}
			var got []time.Time
			for _, e := range events {
				got = append(got, e.deadline(now))
			}
			if diff := cmp.Diff(tt.deadlines, got); diff != "" {
				t.Errorf("deadlines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScheduledEventsAfterErrors(t *testing.T) {
	s := serve(t)
	s.broken = 5
	s.set("/metadata/scheduledevents 2020-07-01", schedule("Terminate"))
	n, err := s.metadata(t).Wait(t.Context())
	if left := time.Until(n.Deadline); err != nil || n.Cause != "Azure: Terminate" || left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("notice %+v, %v leaves %v", n, err, left)
	}
}

func TestEventThatIsBroughtForwardIsToldAgain(t *testing.T) {
	s := serve(t)
	m := s.metadata(t)
	at := func(d time.Duration) {
		due := time.Now().Add(d).UTC().Format(http.TimeFormat)
		s.set("/metadata/scheduledevents 2020-07-01", fmt.Sprintf(
			`{"Events":[{"EventId":"1","EventStatus":"Scheduled","EventType":"Reboot","Resources":["vm1"],"NotBefore":%q}]}`, due))
	}
	at(15 * time.Minute)
	first, err := m.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at(5 * time.Minute)
	second, err := m.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sooner := first.Deadline.Sub(second.Deadline); sooner < 9*time.Minute || sooner > 11*time.Minute {
		t.Errorf("the second notice is %v sooner than the first, want 10 minutes", sooner)
	}
}

func FuzzEvents(f *testing.F) {
	for _, seed := range []string{reboot, schedule("Preempt", "Freeze"), `{"Events":[{"Resources":null}]}`, `{"Events":[{"EventType":"Preempt","Resources":["vm1"],"NotBefore":"yesterday"}]}`, "[]", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		now := time.Now()
		events, err := eventsOf("vm1", document, now)
		if err != nil && events != nil {
			t.Error("events come with an error")
		}
		last := now
		for _, e := range events {
			at := e.deadline(now)
			if at.Before(last) {
				t.Errorf("%+v is due at %v, after one at %v", e, at, last)
			}
			last = at
		}
	})
}

func TestInstance(t *testing.T) {
	s := serve(t)
	want := Instance{
		Name: "vm1", Region: "westus", Zone: "1", Type: "Standard_F8s_v2", PublicIP: "203.0.113.7",
		RootURL: "https://tc.example.com", ProviderID: "azure", Pool: "proj/linux", Group: "westus",
	}
	got, err := s.metadata(t).Instance(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, instance (-want +got):\n%s", err, diff)
	}
	for answer, want := range map[string]string{
		`{"compute":{"name":"vm1"}}`: "worker-manager has not created it",
		`{}`:                         "name",
		`<html>`:                     "/metadata/instance",
	} {
		s.set("/metadata/instance 2020-09-01", answer)
		if _, err := s.metadata(t).Instance(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", answer, err, want)
		}
	}
}

func TestDocument(t *testing.T) {
	s := serve(t)
	if got, err := s.metadata(t).Document(t.Context()); err != nil || got != "MIIEEgYJKoZIhvcNAQcCoIIEAzCCA/8=" {
		t.Errorf("document is %q, %v", got, err)
	}
	s.set("/metadata/attested/document 2020-09-01", `{"encoding":"jwt","signature":"x"}`)
	if _, err := s.metadata(t).Document(t.Context()); err == nil || !strings.Contains(err.Error(), "pkcs7") {
		t.Errorf("returned %v", err)
	}
}
