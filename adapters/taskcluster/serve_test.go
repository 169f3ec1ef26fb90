package taskcluster

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// worker is the configuration of the workers in these tests.
var worker = Config{
	RootURL:     "http://tc.test",
	Credentials: task.Credentials{ClientID: "worker", AccessToken: "t0ken"},
	TaskQueueID: "prov/type", WorkerGroup: "group", WorkerID: "id",
}

// inProcess has a handler answer requests without a network, so that time can
// be that of a bubble.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, req)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// mux serves what a test says, and counts and keeps what was asked.
type mux struct {
	t        *testing.T
	handlers map[string]http.HandlerFunc // by method and path

	mu    sync.Mutex
	asked []asked
}

// asked is a request as it came.
type asked struct {
	what   string // method and path
	query  string
	client string // that signed it
	header http.Header
	length int64
	body   string
	time   time.Time
}

func (m *mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			// The client ended the transfer, and sees why by itself.
			return
		}
	}
	what := r.Method + " " + r.URL.EscapedPath()
	m.mu.Lock()
	m.asked = append(m.asked, asked{what, r.URL.RawQuery, signer(r), r.Header.Clone(), r.ContentLength, string(body), time.Now()})
	m.mu.Unlock()
	h := m.handlers[what]
	if h == nil {
		m.t.Errorf("unexpected request %s", what)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	h(w, r)
}

// requests returns what was asked of what, or everything.
func (m *mux) requests(what string) []asked {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []asked
	for _, a := range m.asked {
		if what == "" || a.what == what {
			found = append(found, a)
		}
	}
	return found
}

// signer returns the client id in a request's Hawk header.
func signer(r *http.Request) string {
	_, after, _ := strings.Cut(r.Header.Get("Authorization"), `id="`)
	id, _, _ := strings.Cut(after, `"`)
	return id
}

// serve returns a client whose requests, and those of claims of it, are
// answered by handlers.
func serve(t *testing.T, cfg Config, handlers map[string]http.HandlerFunc) (*Client, *mux) {
	t.Helper()
	m := &mux{t: t, handlers: handlers}
	c := connect(t, cfg)
	c.http.Transport = inProcess{m}
	return c, m
}

// hold returns a claim on run 1 of task "T" that lasts for d.
func hold(c *Client, d time.Duration) *claim {
	return &claim{
		c: c, id: task.RunID{Task: "T", Run: 1},
		task:        task.Definition{Expires: time.Now().Add(24 * time.Hour)},
		takenUntil:  time.Now().Add(d),
		credentials: task.Credentials{ClientID: "task", AccessToken: "t0ken"},
	}
}

// answer returns a handler that answers with a status and a value as JSON.
func answer(status int, value any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(value)
	}
}

// refusal returns a handler that answers as Taskcluster's services refuse.
func refusal(status int, code, message string) http.HandlerFunc {
	return answer(status, map[string]any{
		"code":        code,
		"message":     message + "\n\n---\n\n* method: test",
		"requestInfo": map[string]any{},
	})
}

// inTurn returns a handler that is each of handlers once, and then the last.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		h(w, r)
	}
}

// hang is a handler that never answers.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
