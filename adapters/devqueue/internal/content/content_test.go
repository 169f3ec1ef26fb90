package content_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

func serve(t *testing.T) (*content.Store, string) {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	contents := filepath.Join(dir, "artifacts")
	s, err := content.Open(contents, db, server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	mux.Handle(content.Path, s)
	return s, contents
}

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	length int64
	body   string
}

func do(t *testing.T, method, url, body string, edit func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	if edit != nil {
		edit(r)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, response.ContentLength, string(got)}
}

func typed(kind string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Content-Type", kind) }
}

const key = "s3/public/../x/a b%2F.txt"

func soon() time.Time { return time.Now().Add(time.Minute) }

func TestContentIsReplayedWithItsHeaders(t *testing.T) {
	s, dir := serve(t)
	for _, body := range []string{"first", "second, longer"} {
		got := do(t, "PUT", s.PutURL(key, "text/x; charset=y", -1, soon()), body, func(r *http.Request) {
			r.Header.Set("Content-Type", "text/x; charset=y")
			r.Header.Set("Content-Encoding", "gzip")
		})
		if got.status != http.StatusOK {
			t.Fatalf("PUT: %d: %s", got.status, got.body)
		}
		got = do(t, "GET", s.GetURL(key, soon()), "", nil)
		if got.body != body || got.header.Get("Content-Type") != "text/x; charset=y" ||
			got.header.Get("Content-Encoding") != "gzip" || got.length != int64(len(body)) {
			t.Errorf("GET: %q, %v, length %d", got.body, got.header, got.length)
		}
	}
	got := do(t, "GET", s.GetURL(key, soon()), "", func(r *http.Request) { r.Header.Set("Range", "bytes=1-3") })
	if got.body != "eco" || got.status != http.StatusPartialContent {
		t.Errorf("range: %d, %q", got.status, got.body)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files of replaced contents are left: %v, %v", files, err)
	}
}

func TestRefusals(t *testing.T) {
	s, dir := serve(t)
	put := s.PutURL(key, "text/x", 3, soon())
	for _, tt := range []struct {
		name, method, url, body string
		edit                    func(*http.Request)
		want                    int
		code                    string
	}{
		{"wrong type", "PUT", put, "abc", typed("text/y"), 403, "SignatureDoesNotMatch"},
		{"wrong length", "PUT", put, "abcd", typed("text/x"), 403, "SignatureDoesNotMatch"},
		{"another signature", "PUT", put[:len(put)-2], "abc", typed("text/x"), 403, "SignatureDoesNotMatch"},
		{"another key", "PUT", strings.Replace(put, "txt", "tyt", 1), "abc", typed("text/x"), 403, "SignatureDoesNotMatch"},
		{"a URL for PUT used for GET", "GET", put, "", nil, 403, "SignatureDoesNotMatch"},
		{"a URL for GET used for PUT", "PUT", s.GetURL(key, soon()), "abc", nil, 403, "SignatureDoesNotMatch"},
		{"expired", "PUT", s.PutURL(key, "text/x", 3, time.Now().Add(-time.Minute)), "abc", typed("text/x"), 403, "AccessDenied"},
		{"nothing there", "GET", s.GetURL(key, soon()), "", nil, 404, "NoSuchKey"},
		{"delete", "DELETE", put, "", nil, 405, "MethodNotAllowed"},
		{"chunked", "PUT", s.PutURL(key, "text/x", -1, soon()), "abc", func(r *http.Request) {
			r.Header.Set("Content-Type", "text/x")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), -1
		}, 411, "MissingContentLength"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := do(t, tt.method, tt.url, tt.body, tt.edit)
			if got.status != tt.want || !strings.Contains(got.body, "<Code>"+tt.code+"</Code>") {
				t.Errorf("got %d: %s", got.status, got.body)
			}
		})
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("files of refused contents are left: %v, %v", files, err)
	}
}

func TestPutOfDataAtHand(t *testing.T) {
	s, _ := serve(t)
	if err := s.Put(key, "text/x", []byte("inline")); err != nil {
		t.Fatal(err)
	}
	got := do(t, "GET", s.GetURL(key, soon()), "", nil)
	if got.body != "inline" || got.length != 6 {
		t.Errorf("got %q", got.body)
	}
}
