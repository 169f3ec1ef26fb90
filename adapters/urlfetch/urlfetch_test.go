package urlfetch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/urlfetch"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read fetches content.
func read(t *testing.T, c urlfetch.Config, r fetch.Reference) (fetch.Content, string, error) {
	t.Helper()
	s, shut := urlfetch.New(c)
	defer shut()
	content, err := s.Resolve(t.Context(), r, nil)
	if err != nil {
		return content, "", err
	}
	body, _, err := content.Open(t.Context())
	if err != nil {
		return content, "", err
	}
	defer func() { _ = body.Close() }()
	got, err := io.ReadAll(body)
	return content, string(got), err
}

func TestFetch(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/image.tar.gz":
			_, _ = io.WriteString(w, "content")
		case "/redirect":
			http.Redirect(w, r, "/image.tar.gz", http.StatusFound)
		case "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	sum := sha256.Sum256([]byte("content"))
	good, local := hex.EncodeToString(sum[:]), urlfetch.Config{Loopback: true}
	for _, tt := range []struct {
		title   string
		config  urlfetch.Config
		url     string
		sha256  string
		kind    fault.Kind
		message string
	}{
		{title: "a file", config: local, url: "/image.tar.gz"},
		{title: "a file of a known hash", config: local, url: "/image.tar.gz", sha256: good},
		{title: "a redirect", config: local, url: "/redirect", sha256: good},
		{"another hash", local, "/image.tar.gz", strings.Repeat("0", 64), fault.Failure, "is not what it should be"},
		{"a missing file", local, "/missing", "", fault.Malformed, "404 Not Found"},
		{"the worker's own host", urlfetch.Config{}, "/image.tar.gz", "", fault.Malformed, "fetches nothing from that address"},
		{"a redirect to the metadata service", local, "/metadata", "", fault.Malformed, "fetches nothing from that address"},
		{"another scheme", local, "file:///etc/passwd", "", fault.Malformed, "not a URL of http or https"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			ref := fetch.Reference{URL: tt.url, SHA256: tt.sha256}
			if strings.HasPrefix(tt.url, "/") {
				ref.URL = server.URL + tt.url
			}
			content, got, err := read(t, tt.config, ref)
			if tt.message == "" {
				if err != nil || got != "content" || (content.Key != "") != (tt.sha256 != "") {
					t.Errorf("got %q, %v, key %q", got, err, content.Key)
				}
				return
			}
			if f := fault.Classify(err); f == nil || f.Kind != tt.kind || !strings.Contains(f.Message, tt.message) {
				t.Errorf("got %v, want %q", err, tt.message)
			}
		})
	}
}

func TestOtherReferencesAreNotItsBusiness(t *testing.T) {
	t.Parallel()
	_, _, err := read(t, urlfetch.Config{}, fetch.Reference{Namespace: "a", Artifact: "b"})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
