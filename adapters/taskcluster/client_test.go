package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry/telemetrytest"
)

func TestNewClientRefusesWhatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no root URL", func(c *Config) { c.RootURL = "" }, "root URL is missing"},
		{"a root URL without a scheme", func(c *Config) { c.RootURL = "tc.example.com" }, `root URL "tc.example.com": not an http or https URL`},
		{"a root URL of another scheme", func(c *Config) { c.RootURL = "ftp://tc.example.com" }, `root URL "ftp://tc.example.com": not an http or https URL`},
		{"a root URL that is none", func(c *Config) { c.RootURL = "http://[" }, `root URL: parse "http://[": missing ']' in host`},
		{"a certificate that is none", func(c *Config) { c.Credentials.Certificate = "s3cret" }, "certificate of the credentials: not JSON"},
		{"an unknown storage type", func(c *Config) { c.StorageType = "tape" }, `storage type "tape": neither "s3" nor "object"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := worker
			tt.change(&cfg)
			_, _, err := NewClient(cfg, telemetry.Off{}, slog.New(slog.DiscardHandler))
			if want := "connect to Taskcluster: " + tt.want; err == nil || err.Error() != want {
				t.Errorf("NewClient returned %v, want %s", err, want)
			}
		})
	}
}

func TestRetryAfterIsHonored(t *testing.T) {
	const op = "GET /api/secrets/v1/secret/s"
	for _, tt := range []struct {
		name  string
		value func() string
		least time.Duration
		most  time.Duration
	}{
		{"seconds", func() string { return "7" }, 7 * time.Second, 8 * time.Second},
		{"a date", func() string { return time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat) }, 8 * time.Second, 10 * time.Second},
		{"longer than is sensible", func() string { return "3600" }, time.Minute, 61 * time.Second},
		{"in the past", func() string { return "Fri, 01 Jan 1999 15:04:05 GMT" }, 0, time.Second},
		{"nonsense", func() string { return "-1" }, 0, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := serve(t, worker, map[string]http.HandlerFunc{op: inTurn(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", tt.value())
					w.WriteHeader(http.StatusTooManyRequests)
				}, answer(200, map[string]any{}))})
				start := time.Now()
				_, err := NewSecrets(c).Get(t.Context(), "s")
				if d := time.Since(start); err != nil || d < tt.least || d > tt.most {
					t.Errorf("returned %v after %v, want between %v and %v", err, d, tt.least, tt.most)
				}
			})
		})
	}
}

func TestPauseGrowsAndSpreads(t *testing.T) {
	err := errors.New("x")
	seen := make(map[time.Duration]bool)
	for n := 1; n < 70; n++ {
		d := pause(n, err)
		if d < 0 || d > longestWait || n < 8 && d > firstWait<<n {
			t.Errorf("waits %v after attempt %d", d, n)
		}
		seen[d] = true
	}
	if len(seen) < 60 {
		t.Errorf("69 waits are of %d lengths", len(seen))
	}
}

func TestAnswersAreBounded(t *testing.T) {
	const op = "GET /api/secrets/v1/secret/s"
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"a page instead of an answer", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>log in</html>")
		}, "secrets.get: 200 OK: answer not understood: invalid character '<' looking for beginning of value"},
		{"a redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://elsewhere.test/")
			w.WriteHeader(http.StatusFound)
		}, "secrets.get: 302 Found"},
		{"an endless refusal", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		}, "secrets.get: 400 Bad Request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, worker, map[string]http.HandlerFunc{op: tt.h})
			if _, err := NewSecrets(c).Get(t.Context(), "s"); err == nil || err.Error() != tt.want {
				t.Errorf("returned %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("an endless answer", func(t *testing.T) {
		c := connect(t, worker)
		c.http.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(endless{})}, nil
		})
		want := "secrets.get: 200 OK: answer is too long"
		if _, err := NewSecrets(c).Get(t.Context(), "s"); err == nil || err.Error() != want {
			t.Errorf("returned %v, want %s", err, want)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, blanks), nil }

var blanks = strings.Repeat(" ", 64<<10)

func TestEveryCallIsASpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := new(telemetrytest.Memory)
		c, _ := serve(t, worker, map[string]http.HandlerFunc{
			create: inTurn(answer(500, nil), s3Target("http://bucket.test/put", time.Hour)), put: answer(200, nil),
		})
		c.tel = tel
		ctx, end := tel.Span(t.Context(), "test")
		if err := NewArtifacts(c).Open(hold(c, time.Hour)).Upload(ctx, meta(), contentOf("hello")); err != nil {
			t.Fatal(err)
		}
		end(nil)
		var got []string
		for _, s := range tel.Recording().Spans[0].Children {
			got = append(got, fmt.Sprint(s.Name, " ", s.Ended, " ", s.Err != nil))
		}
		want := "taskcluster.queue.createArtifact true true, taskcluster.queue.createArtifact true false, taskcluster.artifact.put true false"
		if strings.Join(got, ", ") != want {
			t.Errorf("recorded %v, want %s", got, want)
		}
		if err := tel.Misuse(); err != nil {
			t.Error(err)
		}
	})
}

func TestSecretsStayOutOfErrors(t *testing.T) {
	c := connect(t, worker)
	c.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodPost {
			w := inProcess{s3Target("http://bucket.test/put?signature=s3cret", time.Hour)}
			return w.RoundTrip(req)
		}
		return nil, errors.Join(errBroken, req.Body.Close())
	})
	c.cfg.RetryFor = time.Nanosecond
	synctest.Test(t, func(t *testing.T) {
		err := NewArtifacts(c).Open(hold(c, time.Hour)).Upload(t.Context(), meta(), contentOf("hello"))
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "cannot reach http://bucket.test") {
			t.Errorf("Upload returned %v", err)
		}
	})
}

// BenchmarkCall measures what a call costs besides the network: with a
// certificate of 100 scopes, as the credentials of claims have.
func BenchmarkCall(b *testing.B) {
	c, disconnect, err := NewClient(worker, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(disconnect)
	c.http.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{}`))}, nil
	})
	cl := hold(c, time.Hour)
	cl.credentials.Certificate = `{"version":1,"scopes":["x` + strings.Repeat(`","queue:create-artifact:T/1`, 99) + `"],"start":1,"expiry":2,"seed":"s","signature":"s"}`
	b.ReportAllocs()
	for b.Loop() {
		if err := cl.Resolve(b.Context(), run.Resolution{Outcome: run.Completed}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzAnswers checks that no answer makes a call panic, and that every refusal
// becomes an error that names the call and its status.
func FuzzAnswers(f *testing.F) {
	f.Add(200, "", []byte(`{"tasks":[`+grantOf("T", `{}`)+`]}`))
	f.Add(200, "", []byte(`{"tasks":[{"task":null}]}`))
	f.Add(401, "", []byte(`{"code":"AuthenticationFailed","message":"Bad mac\n---\n"}`))
	f.Add(429, "99999999999", []byte(`{`))
	f.Add(503, "Mon, 02 Jan 2006 15:04:05 GMT", []byte(``))
	c, disconnect, err := NewClient(worker, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(disconnect)
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		transport := roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}},
				Body: io.NopCloser(strings.NewReader(string(body))),
			}, nil
		})
		own := &Client{cfg: c.cfg, tel: c.tel, log: c.log, creds: new(atomic.Pointer[task.Credentials]), http: &http.Client{
			Transport: transport, CheckRedirect: c.http.CheckRedirect,
		}}
		own.SetCredentials(worker.Credentials)
		own.cfg.CancelGrace = time.Millisecond // bounds the report of what is not understood
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		claims, err := NewQueue(own).Claim(ctx, 1)
		if status >= 300 {
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != status || !strings.Contains(err.Error(), fmt.Sprintf("queue.claimWork: %d", status)) {
				t.Errorf("status %d became %v", status, err)
			}
			if d := pause(1, err); d < 0 || d > longestWait+longestAsked {
				t.Errorf("would wait %v", d)
			}
		}
		if err != nil && len(claims) > 0 {
			t.Errorf("granted %d claims with error %v", len(claims), err)
		}
	})
}

func TestCredentialsAreShared(t *testing.T) {
	first := connect(t, worker)
	cfg := worker
	cfg.As, cfg.Credentials = first, task.Credentials{ClientID: "nobody"}
	second := connect(t, cfg)
	for _, renews := range []*Client{first, second} {
		want := task.Credentials{ClientID: "renewed", AccessToken: fmt.Sprintf("%p", renews)}
		renews.SetCredentials(want)
		for _, c := range []*Client{first, second} {
			if got := c.credentials(); got != want {
				t.Errorf("credentials are %+v, want %+v", got, want)
			}
		}
	}
}
