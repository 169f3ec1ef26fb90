package taskcluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

const claimWork = "POST /api/queue/v1/claim-work/prov%2Ftype"

// granting answers claimWork with one claim, whose definition is raw.
func granting(raw string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"tasks":[`+grantOf("T", raw)+`]}`)
	}
}

func grantOf(id, raw string) string {
	return `{"status":{"taskId":"` + id + `"},"runId":1,"workerGroup":"group","workerId":"id","takenUntil":"2100-01-02T03:04:05.678Z",` +
		`"task":` + raw + `,"credentials":{"clientId":"task","accessToken":"t0ken","certificate":"{}"}}`
}

func TestClaimHandsOutWhatTheQueueGranted(t *testing.T) {
	const raw = `{"taskQueueId":"prov/type", "payload":{"b": 1,  "a":"<&>\u00e9"},"extra":{"x":1.0},"deadline":"2100-01-01T00:00:00.000Z"}`
	c, m := serve(t, worker, map[string]http.HandlerFunc{claimWork: granting(raw)})
	claims, err := NewQueue(c).Claim(t.Context(), 7)
	if err != nil || len(claims) != 1 {
		t.Fatalf("granted %d claims, %v", len(claims), err)
	}
	got := claims[0]
	if want := (task.RunID{Task: "T", Run: 1}); got.Run() != want {
		t.Errorf("claimed run %v, want %v", got.Run(), want)
	}
	if string(got.Task().Raw) != raw {
		t.Errorf("definition changed to %s", got.Task().Raw)
	}
	if want := (task.Credentials{ClientID: "task", AccessToken: "t0ken", Certificate: "{}"}); got.Credentials() != want {
		t.Errorf("credentials are %#v", got.Credentials())
	}
	if want := time.Date(2100, 1, 2, 3, 4, 5, 678e6, time.UTC); !got.TakenUntil().Equal(want) {
		t.Errorf("taken until %v, want %v", got.TakenUntil(), want)
	}
	asked := m.requests(claimWork)
	if want := `{"workerGroup":"group","workerId":"id","tasks":7}`; len(asked) != 1 || asked[0].body != want || asked[0].client != "worker" {
		t.Errorf("asked %+v, want %s", asked, want)
	}
}

func TestClaimSurvivesATaskItDoesNotUnderstand(t *testing.T) {
	const report = "POST /api/queue/v1/task/Bad/runs/1/exception"
	c, m := serve(t, worker, map[string]http.HandlerFunc{
		claimWork: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tasks":[`+grantOf("Bad", `{"deadline":"never"}`)+`,`+grantOf("Good", `{}`)+`]}`)
		},
		report: answer(200, map[string]any{}),
	})
	claims, err := NewQueue(c).Claim(t.Context(), 2)
	if err != nil || len(claims) != 1 || claims[0].Run().Task != "Good" {
		t.Fatalf("granted %d claims, %v", len(claims), err)
	}
	if asked := m.requests(report); len(asked) != 1 || asked[0].body != `{"reason":"malformed-payload"}` || asked[0].client != "task" {
		t.Errorf("reported %+v", asked)
	}
}

func TestClaimIsNotWedged(t *testing.T) {
	t.Run("by a queue that never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, worker, map[string]http.HandlerFunc{claimWork: inTurn(hang, granting(`{}`))})
			start := time.Now()
			_, err := NewQueue(c).Claim(t.Context(), 1)
			if _, ok := errors.AsType[*UnreachableError](err); !ok || time.Since(start) != 30*time.Second {
				t.Errorf("Claim returned %v after %v", err, time.Since(start))
			}
			if claims, err := NewQueue(c).Claim(t.Context(), 1); err != nil || len(claims) != 1 {
				t.Errorf("granted %d claims, %v", len(claims), err)
			}
		})
	})
	t.Run("by an answer that is cut off", func(t *testing.T) {
		cut := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"tasks":[`)
		}
		server := httptest.NewServer(inTurn(cut, granting(`{}`)))
		defer server.Close()
		cfg := worker
		cfg.RootURL = server.URL
		q := NewQueue(connect(t, cfg))
		_, err := q.Claim(t.Context(), 1)
		if _, ok := errors.AsType[*UnreachableError](err); !ok {
			t.Errorf("Claim returned %v", err)
		}
		if claims, err := q.Claim(t.Context(), 1); err != nil || len(claims) != 1 {
			t.Errorf("granted %d claims, %v", len(claims), err)
		}
	})
}

func TestClaimThatIsCanceled(t *testing.T) {
	after := func(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(d):
				h(w, r)
			case <-r.Context().Done():
			}
		}
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		claims  int
		after   time.Duration // from the start; canceled at 5 s
	}{
		{"keeps what is granted within the grace", after(5*time.Second+499*time.Millisecond, granting(`{}`)), 1, 5499 * time.Millisecond},
		{"closes the connection after the grace", after(7*time.Second, granting(`{}`)), 0, 5500 * time.Millisecond},
		{"returns when the queue has nothing", after(5200*time.Millisecond, answer(200, map[string]any{"tasks": []any{}})), 0, 5200 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := serve(t, worker, map[string]http.HandlerFunc{claimWork: tt.handler})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				claims, err := NewQueue(c).Claim(ctx, 1)
				if got := time.Since(start); len(claims) != tt.claims || got != tt.after {
					t.Errorf("granted %d claims, %v, after %v", len(claims), err, got)
				}
				if tt.claims > 0 && err != nil {
					t.Errorf("granted %d claims with error %v", len(claims), err)
				}
			})
		})
	}
	t.Run("reads an answer that has begun to its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := connect(t, worker)
			c.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
				httptrace.ContextClientTrace(req.Context()).GotFirstResponseByte()
				return &http.Response{StatusCode: http.StatusOK, Body: &slow{ctx: req.Context(), wait: 10 * time.Second, r: strings.NewReader(`{"tasks":[` + grantOf("T", "{}") + `]}`)}}, nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if claims, err := NewQueue(c).Claim(ctx, 1); len(claims) != 1 || err != nil {
				t.Errorf("granted %d claims, %v", len(claims), err)
			}
		})
	})
	t.Run("asks nothing if it is canceled before", func(t *testing.T) {
		c, _ := serve(t, worker, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if claims, err := NewQueue(c).Claim(ctx, 1); len(claims) != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("granted %d claims, %v", len(claims), err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// slow is a body that arrives after a wait.
type slow struct {
	ctx  context.Context //nolint:containedctx // it is that of the request
	wait time.Duration
	r    io.Reader
}

func (s *slow) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.wait):
		s.wait = 0
		return s.r.Read(p)
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func (s *slow) Close() error { return nil }

// TestCanceledClaimFreesTheQueue shows that the queue sees the connection go.
func TestCanceledClaimFreesTheQueue(t *testing.T) {
	waiting, gone := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// The server watches the connection once the body is read.
		_, _ = io.Copy(io.Discard, r.Body)
		close(waiting)
		<-r.Context().Done()
		close(gone)
	}))
	defer server.Close()
	cfg := worker
	cfg.RootURL, cfg.CancelGrace = server.URL, time.Millisecond
	c := connect(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-waiting
		cancel()
	}()
	if claims, err := NewQueue(c).Claim(ctx, 1); len(claims) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("granted %d claims, %v", len(claims), err)
	}
	<-gone
}

func TestLosingAClaim(t *testing.T) {
	const (
		reclaim = "POST /api/queue/v1/task/T/runs/1/reclaim"
		status  = "GET /api/queue/v1/task/T/status"
		failed  = "POST /api/queue/v1/task/T/runs/1/failed"
	)
	runs := func(states ...string) http.HandlerFunc {
		list := make([]map[string]any, len(states))
		for i, s := range states {
			list[i] = map[string]any{"runId": i, "state": s}
		}
		return answer(200, map[string]any{"status": map[string]any{"runs": list}})
	}
	for _, tt := range []struct {
		name    string
		op      string
		lease   time.Duration
		handler http.HandlerFunc
		lost    bool
	}{
		{"a conflict at a reclaim", reclaim, time.Hour, refusal(409, "RequestConflict", "no"), true},
		{"a reclaim of an unknown task", reclaim, time.Hour, refusal(404, "ResourceNotFound", "no"), true},
		{"a failing queue at a reclaim", reclaim, time.Hour, refusal(500, "InternalServerError", "no"), false},
		{"a crowded queue at a reclaim", reclaim, time.Hour, refusal(429, "", "no"), false},
		{"credentials that the queue refuses", reclaim, time.Hour, refusal(401, "AuthenticationFailed", "no"), false},
		{"credentials that expired with the claim", reclaim, -time.Second, refusal(401, "AuthenticationFailed", "no"), true},
		{"a run that is resolved", status, time.Hour, runs("exception", "completed"), true},
		{"a run that is retried", status, time.Hour, runs("exception", "exception", "pending"), true},
		{"a run that the queue does not know", status, time.Hour, runs("running"), true},
		{"a task that the queue does not know", status, time.Hour, refusal(404, "ResourceNotFound", "no"), true},
		{"a failing queue at a check", status, time.Hour, refusal(503, "", "no"), false},
		{"a conflict at a resolution", failed, time.Hour, refusal(409, "RequestConflict", "no"), true},
		{"a resolution of an unknown task", failed, time.Hour, refusal(404, "ResourceNotFound", "no"), true},
		{"a resolution that the queue refuses", failed, time.Hour, refusal(400, "InputError", "no"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, m := serve(t, worker, map[string]http.HandlerFunc{tt.op: tt.handler})
			cl := hold(c, tt.lease)
			var err error
			switch tt.op {
			case reclaim:
				err = cl.Reclaim(t.Context())
			case status:
				err = cl.Check(t.Context())
			default:
				err = cl.Resolve(t.Context(), run.Resolution{Outcome: run.Failed})
			}
			if err == nil || errors.Is(err, queue.ErrClaimLost) != tt.lost {
				t.Errorf("returned %v; want a lost claim: %t", err, tt.lost)
			}
			if asked := m.requests(tt.op); len(asked) != 1 || asked[0].client != "task" {
				t.Errorf("asked %+v", asked)
			}
		})
	}
}

func TestReclaimReplacesTheCredentials(t *testing.T) {
	const op = "POST /api/queue/v1/task/T/runs/1/reclaim"
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	c, m := serve(t, worker, map[string]http.HandlerFunc{op: answer(200, map[string]any{
		"takenUntil": until, "credentials": map[string]string{"clientId": "task2", "accessToken": "t0ken2", "certificate": "{}"},
	})})
	cl := hold(c, time.Minute)
	for range 2 {
		if err := cl.Reclaim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := (task.Credentials{ClientID: "task2", AccessToken: "t0ken2", Certificate: "{}"}); cl.Credentials() != want || !cl.TakenUntil().Equal(until) {
		t.Errorf("claim has %#v until %v", cl.Credentials(), cl.TakenUntil())
	}
	if asked := m.requests(op); len(asked) != 2 || asked[0].client != "task" || asked[1].client != "task2" {
		t.Errorf("asked as %+v", asked)
	}
}

func TestResolveIsRepeatedUntilReported(t *testing.T) {
	const op = "POST /api/queue/v1/task/T/runs/1/exception"
	synctest.Test(t, func(t *testing.T) {
		var failures []http.HandlerFunc
		for range 40 {
			failures = append(failures, refusal(503, "", "later"))
		}
		c, m := serve(t, worker, map[string]http.HandlerFunc{op: inTurn(append(failures, answer(200, map[string]any{}))...)})
		cl := hold(c, time.Hour)
		// Its credentials change while it is at it.
		m.handlers[op] = func(next http.HandlerFunc) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				cl.mu.Lock()
				cl.credentials.ClientID = "task2"
				cl.mu.Unlock()
				next(w, r)
			}
		}(m.handlers[op])
		if err := cl.Resolve(t.Context(), run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}); err != nil {
			t.Fatal(err)
		}
		asked := m.requests(op)
		if len(asked) != 41 || asked[40].body != `{"reason":"worker-shutdown"}` || asked[0].client != "task" || asked[40].client != "task2" {
			t.Errorf("asked %d times, last %+v", len(asked), asked[len(asked)-1])
		}
		for i := range 40 {
			if gap := asked[i+1].time.Sub(asked[i].time); gap > longestWait {
				t.Errorf("waited %v after attempt %d", gap, i+1)
			}
		}
	})
}

// The credentials of a claim come anew with each reclaim, and a clock that is wrong
// may be set right: a refusal is no end while the lease lasts.
func TestResolveOutlivesARefusalOfItsCredentials(t *testing.T) {
	const op = "POST /api/queue/v1/task/T/runs/1/completed"
	refuse := refusal(401, "AuthenticationFailed", "ext.certificate.expiry < now")
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		lost    bool
		after   time.Duration // at least
	}{
		{"that passes", inTurn(refuse, refuse, refusal(403, "InsufficientScopes", "no"), answer(200, map[string]any{})), false, 0},
		{"that lasts", refuse, true, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := serve(t, worker, map[string]http.HandlerFunc{op: tt.handler})
				start := time.Now()
				err := hold(c, time.Hour).Resolve(t.Context(), run.Resolution{Outcome: run.Completed})
				took := time.Since(start)
				if errors.Is(err, queue.ErrClaimLost) != tt.lost || !tt.lost && err != nil || took < tt.after || took > tt.after+longestWait {
					t.Errorf("Resolve returned %v after %v", err, took)
				}
			})
		})
	}
}

func TestResolveGivesUpWithItsContext(t *testing.T) {
	const op = "POST /api/queue/v1/task/T/runs/1/completed"
	synctest.Test(t, func(t *testing.T) {
		c, _ := serve(t, worker, map[string]http.HandlerFunc{op: refusal(503, "Down", "for repairs")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		err := hold(c, time.Minute).Resolve(ctx, run.Resolution{Outcome: run.Completed})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "for repairs") || time.Since(start) != time.Hour {
			t.Errorf("Resolve returned %v after %v", err, time.Since(start))
		}
	})
}

// TestConnectionsAreKept makes calls of every kind and outcome, one after the
// other, over one connection.
func TestConnectionsAreKept(t *testing.T) {
	var connections atomic.Int32
	m := &mux{t: t}
	server := httptest.NewUnstartedServer(m)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	m.handlers = map[string]http.HandlerFunc{
		claimWork: granting(`{}`),
		"POST /api/queue/v1/task/T/runs/1/reclaim":     refusal(409, "RequestConflict", strings.Repeat("no ", 1000)),
		"POST /api/queue/v1/task/T/runs/1/completed":   answer(200, map[string]string{"status": strings.Repeat("x", 10_000)}),
		"GET /api/queue/v1/task/T/status":              refusal(500, "", "no"),
		"POST /api/queue/v1/task/T/runs/1/artifacts/a": s3Target(server.URL+"/put", time.Hour),
		"PUT /put": answer(200, map[string]string{}),
	}
	cfg := worker
	cfg.RootURL = server.URL
	c := connect(t, cfg)
	for range 5 {
		claims, err := NewQueue(c).Claim(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := claims[0].Reclaim(t.Context()); !errors.Is(err, queue.ErrClaimLost) {
			t.Error(err)
		}
		if err := claims[0].Check(t.Context()); err == nil {
			t.Error("Check succeeded")
		}
		if err := NewArtifacts(c).Open(claims[0]).Upload(t.Context(), meta(), contentOf("hello")); err != nil {
			t.Error(err)
		}
		if err := claims[0].Resolve(t.Context(), run.Resolution{Outcome: run.Completed}); err != nil {
			t.Error(err)
		}
	}
	if got := connections.Load(); got != 1 {
		t.Errorf("used %d connections", got)
	}
}
