package faultproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// taken is when the leases of the service end.
const taken = "2026-01-01T00:00:00.000Z"

// service notes what it is asked, and answers with the end of a lease.
type service struct {
	mu    sync.Mutex
	asked []string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	if err == nil {
		s.asked = append(s.asked, r.Host+r.URL.Path+" "+string(body))
	}
	s.mu.Unlock()
	_, _ = io.WriteString(w, `{"takenUntil": "`+taken+`"}`)
}

// calls returns how many calls the service has got whole.
func (s *service) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// newProxy starts a service behind a proxy.
func newProxy(t *testing.T) (*Proxy, *service) {
	t.Helper()
	s := &service{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	p, err := New(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, s
}

// call makes a call through the proxy, and returns the answer.
func call(ctx context.Context, p *Proxy, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL()+path, strings.NewReader("a question"))
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(content), err
}

const (
	claimPath   = "/api/queue/v1/claim-work/a%2Fb"
	reclaimPath = "/api/queue/v1/task/t/runs/0/reclaim"
)

func TestWithoutFaults(t *testing.T) {
	p, s := newProxy(t)
	status, body, err := call(t.Context(), p, claimPath)
	if status != http.StatusOK || body != `{"takenUntil": "`+taken+`"}` || err != nil {
		t.Errorf("got %d %s, %v", status, body, err)
	}
	want := []string{strings.TrimPrefix(p.URL(), "http://") + "/api/queue/v1/claim-work/a/b a question"}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault  Fault
		status int  // 0 if there is no answer
		broken bool // the answer's body ends early, or there is none
		done   bool // the service has done it
	}{
		{Error500, 500, false, false},
		{Error503, 503, false, false},
		{Error429, 429, false, false},
		{Credential, 401, false, false},
		{Refuse, 0, true, false},
		{Lose, 0, true, true},
		{Truncate, 200, true, true},
		{Slow, 200, false, true},
		{Cut, 0, true, false},
		{Skew, 200, false, true},
		{Down, 0, true, false},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			p, s := newProxy(t)
			if err := p.Begin(tt.fault, 1, time.Hour, 7); err != nil {
				t.Fatal(err)
			}
			status, body, err := call(t.Context(), p, reclaimPath)
			if status != tt.status || (err != nil) != tt.broken || s.calls() == 1 != tt.done {
				t.Errorf("got %d %q, %v, after %d calls of the service", status, body, err, s.calls())
			}
			if skewed := !strings.Contains(body, taken) && strings.Contains(body, "takenUntil"); skewed != (tt.fault == Skew) && err == nil {
				t.Errorf("the answer is %s", body)
			}
			if hits := p.Hits()[tt.fault]; hits != 1 && tt.fault != Down {
				t.Errorf("it is counted %d times", hits)
			}
			if err := p.End(); err != nil {
				t.Fatal(err)
			}
			if status, body, err := call(t.Context(), p, reclaimPath); status != http.StatusOK || !strings.Contains(body, taken) || err != nil {
				t.Errorf("afterwards: %d %q, %v", status, body, err)
			}
		})
	}
}

func TestHangingEnds(t *testing.T) {
	p, s := newProxy(t)
	if err := p.Begin(Hang, 1, 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := call(ctx, p, reclaimPath); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want nothing until the caller gives up", err)
	}
	errs := make(chan error)
	go func() {
		_, _, err := call(t.Context(), p, reclaimPath)
		errs <- err
	}()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for p.Hits()[Hang] < 2 {
		<-ticker.C
	}
	if err := p.End(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err == nil || s.calls() > 0 {
		t.Errorf("got %v, after %d calls of the service", err, s.calls())
	}
}

func TestAShareOfRequestsMeetsAFault(t *testing.T) {
	failed := func(seed uint64) (all []int) {
		p, _ := newProxy(t)
		if err := p.Begin(Error500, 0.5, 0, seed); err != nil {
			t.Fatal(err)
		}
		for i := range 40 {
			status, _, err := call(t.Context(), p, reclaimPath)
			if err != nil {
				t.Fatal(err)
			}
			if status != http.StatusOK {
				all = append(all, i)
			}
		}
		return all
	}
	first := failed(1)
	if len(first) < 5 || len(first) > 35 {
		t.Errorf("%d of 40 requests failed, want about 20", len(first))
	}
	if diff := cmp.Diff(first, failed(1)); diff != "" {
		t.Errorf("the same seed gives other failures:\n%s", diff)
	}
	if cmp.Equal(first, failed(2)) {
		t.Error("another seed gives the same failures")
	}
}

func TestFaultsOfSomeCalls(t *testing.T) {
	for _, tt := range []struct {
		fault Fault
		path  string
	}{
		{Skew, "/api/queue/v1/task/t/status"},
		{Credential, "/api/queue/v1/task/t/runs/0/completed"},
	} {
		p, _ := newProxy(t)
		if err := p.Begin(tt.fault, 1, time.Hour, 0); err != nil {
			t.Fatal(err)
		}
		if status, body, err := call(t.Context(), p, tt.path); status != http.StatusOK || !strings.Contains(body, taken) || err != nil {
			t.Errorf("%s of %s: %d %s, %v", tt.fault, tt.path, status, body, err)
		}
	}
}

func TestTraps(t *testing.T) {
	for _, tt := range []struct {
		moment   Moment
		done     bool // the service has done it
		answered bool
	}{{Asked, false, false}, {Done, true, false}, {Answered, true, true}} {
		t.Run(string(tt.moment), func(t *testing.T) {
			p, s := newProxy(t)
			sprung := make(chan int, 2)
			p.Set(&Trap{Call: Reclaim, Moment: tt.moment, Do: func() { sprung <- s.calls() }})
			if _, _, err := call(t.Context(), p, claimPath); err != nil || len(sprung) > 0 {
				t.Fatalf("another call springs it: %v", err)
			}
			_, _, err := call(t.Context(), p, reclaimPath)
			if done := <-sprung == 2; done != tt.done || (err == nil) != tt.answered {
				t.Errorf("the service had done it: %v; the answer: %v", done, err)
			}
			if _, _, err := call(t.Context(), p, reclaimPath); err != nil || len(sprung) > 0 {
				t.Errorf("it springs again: %v", err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		want         Call
	}{
		{"POST", claimPath, Claim},
		{"POST", reclaimPath, Reclaim},
		{"POST", "/api/queue/v1/task/t/runs/0/artifacts/public%2Fx", Create},
		{"PUT", "/content/s3%2Ft%2F0%2Fpublic%2Fx?a=b", Upload},
		{"POST", "/api/queue/v1/task/t/runs/0/completed", Report},
		{"POST", "/api/queue/v1/task/t/runs/0/failed", Report},
		{"POST", "/api/queue/v1/task/t/runs/0/exception", Report},
		{"GET", "/api/queue/v1/task/t/status", ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil)
		for _, c := range Calls() {
			if got := c.Matches(r); got != (c == tt.want) {
				t.Errorf("%s %s is %s: %v", tt.method, tt.path, c, got)
			}
		}
	}
}
