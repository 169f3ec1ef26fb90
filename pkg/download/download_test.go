package download_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/pkg/download"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var content = bytes.Repeat([]byte("0123456789abcdef"), 1<<12)

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// breaking serves content, and breaks off each of the first answers half-way
// through what is asked for.
func breaking(breaks int32, ranges bool) http.HandlerFunc {
	var asked atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && ranges {
			from, _ = strconv.Atoi(strings.TrimSuffix(s, "-"))
		}
		rest := content[from:]
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if asked.Add(1) <= breaks {
			_, _ = w.Write(rest[:len(rest)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(rest)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	var changes atomic.Int32
	for _, tt := range []struct {
		title   string
		handler http.HandlerFunc
		sha256  string
		size    int64
		err     error
	}{
		{"at once", breaking(0, true), sum(content), int64(len(content)), nil},
		{"after breaks", breaking(3, true), sum(content), int64(len(content)), nil},
		{"after a break, from a server without ranges", breaking(1, false), sum(content), int64(len(content)), nil},
		{"with another hash", breaking(0, true), sum(nil), int64(len(content)), download.ErrHash},
		{"compressed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(content)
			_ = z.Close()
		}, sum(content), -1, nil},
		{"that changes after a break", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", strconv.Itoa(int(changes.Add(1))))
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "", 10, errAny},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			client := server.Client()
			defer client.CloseIdleConnections()
			r, size, err := download.Content{
				Client: client, URL: func(context.Context) (string, error) { return server.URL, nil },
				SHA256: tt.sha256, Pause: time.Millisecond,
			}.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if size != tt.size {
				t.Errorf("size is %d, want %d", size, tt.size)
			}
			switch {
			case tt.err == nil && (err != nil || !bytes.Equal(got, content)):
				t.Errorf("read %d bytes, %v", len(got), err)
			case errors.Is(tt.err, errAny) && err == nil, tt.err != nil && !errors.Is(tt.err, errAny) && !errors.Is(err, tt.err):
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

var errAny = errors.New("any error")

func TestServersThatRefuse(t *testing.T) {
	t.Parallel()
	for status, attempts := range map[int]int32{404: 1, 403: 1, 500: 3, 429: 3} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(status)
		}))
		_, _, err := download.Content{
			Client: server.Client(), URL: func(context.Context) (string, error) { return server.URL, nil },
			Attempts: 3, Pause: time.Millisecond,
		}.Open(t.Context())
		if s, ok := errors.AsType[*download.StatusError](err); !ok || s.Code != status || asked.Load() != attempts {
			t.Errorf("%d: got %v after %d attempts, want %d", status, err, asked.Load(), attempts)
		}
		server.Close()
	}
	_, _, err := download.Content{URL: func(context.Context) (string, error) { return "", errAny }}.Open(t.Context())
	if !errors.Is(err, errAny) {
		t.Errorf("got %v, want the error of URL", err)
	}
}
