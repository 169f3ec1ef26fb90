package taskcluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

const (
	create   = "POST /api/queue/v1/task/T/runs/1/artifacts/a"
	statusOf = "GET /api/queue/v1/task/T/status"
	finish   = "PUT /api/queue/v1/task/T/runs/1/artifacts/a"
	put      = "PUT /put"
)

// meta describes artifact "a".
func meta() artifact.Meta {
	return artifact.Meta{Name: "a", ContentType: "text/plain", Expires: time.Date(2100, 1, 2, 3, 4, 5, 678_900_000, time.UTC)}
}

func contentOf(s string) artifact.Content {
	return artifact.Content{
		Size: int64(len(s)), Length: int64(len(s)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil },
	}
}

// s3Target answers createArtifact with a URL that is good for d.
func s3Target(url string, d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer(200, map[string]any{
			"storageType": "s3", "putUrl": url, "contentType": "text/plain", "expires": time.Now().Add(d),
		})(w, r)
	}
}

// upload uploads artifact "a" with the content "hello" to handlers.
func upload(t *testing.T, cfg Config, handlers map[string]http.HandlerFunc) (*mux, error) {
	t.Helper()
	c, m := serve(t, cfg, handlers)
	content := contentOf("hello")
	content.Encoding, content.Length = "gzip", 20
	if cfg.StorageType == Object {
		content = contentOf(strings.Repeat("hello", 2000))
	}
	return m, NewArtifacts(c).Open(hold(c, time.Hour)).Upload(t.Context(), meta(), content)
}

func TestUploadToABucket(t *testing.T) {
	ok := answer(200, map[string]any{})
	expired := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`)
	}
	valid, stale := s3Target("http://bucket.test/put", time.Hour), s3Target("http://bucket.test/stale", -time.Second)
	for _, tt := range []struct {
		name    string
		creates http.HandlerFunc
		puts    http.HandlerFunc
		created int
		put     int
		fault   fault.Kind // 0 for success
		message string
	}{
		{"at once", valid, ok, 1, 1, 0, ""},
		{"although the queue fails twice", inTurn(refusal(500, "", ""), refusal(429, "", ""), valid), ok, 3, 1, 0, ""},
		{"although the bucket fails twice", valid, inTurn(answer(503, nil), answer(500, nil), ok), 1, 3, 0, ""},
		{"although the URL expired", valid, inTurn(expired, ok), 2, 2, 0, ""},
		{"although the URL was late", inTurn(stale, valid), inTurn(answer(500, nil), ok), 2, 2, 0, ""},
		{"unless the bucket refuses it", valid, expired, 3, 3, fault.Unavailable, `cannot upload artifact "a": the bucket refuses it`},
		{"unless the bucket fails for long", valid, answer(500, nil), 0, 0, fault.Unavailable, `cannot upload artifact "a"`},
		{"unless the queue fails for long", answer(500, nil), ok, 0, 0, fault.Unavailable, `cannot create artifact "a": the queue is out of reach`},
		{"unless the queue hangs", hang, ok, 0, 0, fault.Unavailable, `cannot create artifact "a": the queue is out of reach`},
		{
			"unless the queue refuses it", refusal(400, "InputError", "Artifact expires after the task\nsecond line"), ok, 1, 0,
			fault.Malformed, "the queue refuses artifact \"a\": Artifact expires after the task\nsecond line",
		},
		{"unless the name is too long", refusal(413, "", ""), ok, 1, 0, fault.Malformed, `the queue refuses artifact "a": queue.createArtifact: 413 Request Entity Too Large`},
		{
			"unless the queue refuses the credentials", refusal(403, "InsufficientScopes", "no"), ok, 1, 0,
			fault.Unavailable, `cannot create artifact "a": the queue refuses the run's credentials`,
		},
		{"unless it exists with another type", refusal(409, "RequestConflict", "Artifact already exists"), ok, 1, 0, fault.Malformed, `the queue refuses artifact "a": Artifact already exists`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				m, err := upload(t, worker, map[string]http.HandlerFunc{create: tt.creates, put: tt.puts, "PUT /stale": tt.puts})
				f, isFault := errors.AsType[*fault.Error](err)
				switch {
				case tt.fault == 0 && err != nil:
					t.Fatal(err)
				case tt.fault != 0 && (!isFault || f.Kind != tt.fault || f.Message != tt.message):
					t.Errorf("Upload returned %#v", err)
				}
				created, puts := m.requests(create), append(m.requests(put), m.requests("PUT /stale")...)
				if tt.created == 0 {
					if d := time.Since(start); d < 5*time.Minute || d > 7*time.Minute {
						t.Errorf("gave up after %v", d)
					}
					return
				}
				if len(created) != tt.created || len(puts) != tt.put {
					t.Errorf("created %d and transferred %d times, want %d and %d", len(created), len(puts), tt.created, tt.put)
				}
			})
		})
	}
}

func TestUploadSaysWhatItSends(t *testing.T) {
	m, err := upload(t, worker, map[string]http.HandlerFunc{
		create: s3Target("http://bucket.test/put?signature=x", time.Hour), put: answer(200, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	created, sent := m.requests(create)[0], m.requests(put)[0]
	if want := `{"storageType":"s3","expires":"2100-01-02T03:04:05.678Z","contentType":"text/plain","contentLength":20}`; created.body != want || created.client != "task" {
		t.Errorf("created %s as %q, want %s", created.body, created.client, want)
	}
	if sent.body != "hello" || sent.length != 5 || sent.header.Get("Content-Type") != "text/plain" ||
		sent.header.Get("Content-Encoding") != "gzip" || sent.header.Get("Authorization") != "" || sent.query != "signature=x" {
		t.Errorf("sent %+v", sent)
	}
}

// TestTransferOverANetwork shows what only real connections do.
func TestTransferOverANetwork(t *testing.T) {
	long := strings.Repeat("hello", 1<<20)
	t.Run("content without bytes has a length", func(t *testing.T) {
		var length []string
		server := transferTo(t, func(_ http.ResponseWriter, r *http.Request) {
			length = append(length, r.Header.Get("Content-Length"))
			if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
				t.Errorf("length %d, transfer encoding %v", r.ContentLength, r.TransferEncoding)
			}
		})
		if err := server.Upload(t.Context(), meta(), contentOf("")); err != nil || len(length) != 1 || length[0] != "0" {
			t.Errorf("Upload returned %v and sent lengths %v", err, length)
		}
	})
	t.Run("a reset connection is no end", func(t *testing.T) {
		attempts := 0
		store := transferTo(t, func(w http.ResponseWriter, r *http.Request) {
			if attempts++; attempts == 1 {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				panic(http.ErrAbortHandler)
			}
			if n, err := io.Copy(io.Discard, r.Body); n != int64(len(long)) || err != nil {
				t.Errorf("received %d bytes, %v", n, err)
			}
		})
		if err := store.Upload(t.Context(), meta(), contentOf(long)); err != nil || attempts != 2 {
			t.Errorf("Upload returned %v after %d attempts", err, attempts)
		}
	})
	t.Run("content is closed when the bucket answers early", func(t *testing.T) {
		attempts, closed := 0, 0
		store := transferTo(t, func(w http.ResponseWriter, r *http.Request) {
			if attempts++; attempts == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
		})
		c := contentOf(long)
		c.Open = func() (io.ReadCloser, error) { return &counted{strings.NewReader(long), &closed}, nil }
		if err := store.Upload(t.Context(), meta(), c); err != nil || closed != 2 {
			t.Errorf("Upload returned %v, having closed the content %d times", err, closed)
		}
	})
	t.Run("content that grows is not cut", func(t *testing.T) {
		store := transferTo(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		for _, size := range []int64{0, 5} {
			c := contentOf("hello, world")
			c.Size = size
			if err := store.Upload(t.Context(), meta(), c); !errors.Is(err, errSize) {
				t.Errorf("Upload of %d bytes of 12 returned %v", size, err)
			}
		}
	})
}

type counted struct {
	io.Reader
	closed *int
}

func (c *counted) Close() error { *c.closed++; return nil }

// transferTo returns a store whose bucket is h.
func transferTo(t *testing.T, h http.HandlerFunc) artifact.Store {
	t.Helper()
	routes := http.NewServeMux()
	server := httptest.NewServer(routes)
	t.Cleanup(server.Close)
	routes.HandleFunc("/api/", s3Target(server.URL+"/put", time.Hour))
	routes.HandleFunc("/put", h)
	cfg := worker
	cfg.RootURL = server.URL
	c := connect(t, cfg)
	return NewArtifacts(c).Open(hold(c, time.Hour))
}

func TestStalledTransferIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m, err := upload(t, worker, map[string]http.HandlerFunc{
			create: s3Target("http://bucket.test/put", time.Hour), put: inTurn(hang, answer(200, nil)),
		})
		if d := time.Since(start); err != nil || d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("Upload returned %v after %v", err, d)
		}
		if n := len(m.requests(put)); n != 2 {
			t.Errorf("transferred %d times", n)
		}
	})
}

func TestConflictsAreToldApart(t *testing.T) {
	state := func(s string) http.HandlerFunc {
		return answer(200, map[string]any{"status": map[string]any{"runs": []map[string]string{{"state": "exception"}, {"state": s}}}})
	}
	for _, tt := range []struct {
		name   string
		state  string
		refuse string
		lost   bool
	}{
		{"a completed run", "completed", "Artifacts cannot be created for a task after it is resolved", true},
		{"a running run, whatever the words", "running", "this artifact is there", false},
		{"an artifact that exists in an exception", "exception", "Artifact already exists with different properties", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := upload(t, worker, map[string]http.HandlerFunc{
				create: refusal(409, "RequestConflict", tt.refuse), statusOf: state(tt.state),
			})
			f, _ := errors.AsType[*fault.Error](err)
			if errors.Is(err, queue.ErrClaimLost) != tt.lost || !tt.lost && (f == nil || f.Kind != fault.Malformed) {
				t.Errorf("Upload returned %v; want a lost claim: %t", err, tt.lost)
			}
		})
	}
}

func TestCallsUseTheLatestCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := serve(t, worker, nil)
		cl := hold(c, time.Hour)
		m.handlers = map[string]http.HandlerFunc{create: inTurn(func(w http.ResponseWriter, r *http.Request) {
			cl.mu.Lock()
			defer cl.mu.Unlock()
			cl.credentials.ClientID = "task2"
			refusal(500, "", "")(w, r)
		}, answer(200, map[string]any{}))}
		if err := NewArtifacts(c).Open(cl).Redirect(t.Context(), meta(), "https://example.com"); err != nil {
			t.Fatal(err)
		}
		if asked := m.requests(create); len(asked) != 2 || asked[0].client != "task" || asked[1].client != "task2" {
			t.Errorf("asked %+v", asked)
		}
	})
}

func TestOlderQueuesAreSpared(t *testing.T) {
	strict := func(property string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			refusal(400, "InputValidationError", "Schema Validation Failed!\nRejecting Schema: x\nErrors:\n  * data must NOT have additional properties: "+property)(w, r)
		}
	}
	t.Run("the length of content", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{
			create: inTurn(strict("contentLength"), s3Target("http://bucket.test/put", time.Hour)), put: answer(200, nil),
		})
		store := NewArtifacts(c).Open(hold(c, time.Hour))
		for range 2 {
			if err := store.Upload(t.Context(), meta(), contentOf("x")); err != nil {
				t.Fatal(err)
			}
		}
		asked := m.requests(create)
		if len(asked) != 3 {
			t.Fatalf("asked %d times, want 3", len(asked))
		}
		for i, a := range asked {
			if strings.Contains(a.body, "contentLength") != (i == 0) {
				t.Errorf("request %d is %s", i, a.body)
			}
		}
	})
	t.Run("a refusal that does not come whole", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{
			create: inTurn(strict("contentLength"), strict("contentLength"), s3Target("http://bucket.test/put", time.Hour)), put: answer(200, nil),
		})
		first := true
		network := c.http.Transport
		c.http.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := network.RoundTrip(r)
			if err == nil && first {
				first = false
				resp.Body = io.NopCloser(io.MultiReader(io.LimitReader(resp.Body, 20), iotest.ErrReader(io.ErrUnexpectedEOF)))
			}
			return resp, err
		})
		if err := NewArtifacts(c).Open(hold(c, time.Hour)).Upload(t.Context(), meta(), contentOf("x")); err != nil {
			t.Fatal(err)
		}
		if asked := m.requests(create); len(asked) != 3 {
			t.Errorf("asked %d times, want 3", len(asked))
		}
	})
	t.Run("a reason for an absence", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{create: inTurn(strict("reason"), answer(200, map[string]any{}))})
		store := NewArtifacts(c).Open(hold(c, time.Hour))
		if err := store.Explain(t.Context(), meta(), artifact.NotReadable, strings.Repeat("é", 5000)); err != nil {
			t.Fatal(err)
		}
		var sent struct{ Reason, Message string }
		asked := m.requests(create)
		if err := json.Unmarshal([]byte(asked[len(asked)-1].body), &sent); err != nil {
			t.Fatal(err)
		}
		if sent.Reason != "invalid-resource-on-worker" || utf8.RuneCountInString(sent.Message) != 4096 {
			t.Errorf("explained with %s and %d characters", sent.Reason, utf8.RuneCountInString(sent.Message))
		}
	})
}

func TestBucketThatIsAskedTooMuchIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := answer(429, nil)
		c, m := serve(t, worker, map[string]http.HandlerFunc{
			create: s3Target("http://bucket.test/put", time.Hour), put: inTurn(busy, busy, busy, busy, busy, answer(200, nil)),
		})
		if err := NewArtifacts(c).Open(hold(c, time.Hour)).Upload(t.Context(), meta(), contentOf("x")); err != nil {
			t.Fatal(err)
		}
		if asked := m.requests(put); len(asked) != 6 {
			t.Errorf("asked %d times, want 6", len(asked))
		}
	})
}

func TestUploadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := serve(t, worker, map[string]http.HandlerFunc{create: s3Target("http://bucket.test/put", time.Hour), put: hang})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := NewArtifacts(c).Open(hold(c, time.Hour)).Upload(ctx, meta(), contentOf("x"))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Upload returned %v after %v", err, time.Since(start))
		}
	})
}
