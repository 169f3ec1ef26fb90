package imds

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers has a service answer with codes, one after the other, the last one
// for ever.
func answers(t *testing.T, codes ...int) (*Client, *atomic.Int32) {
	t.Helper()
	asked := &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Add(1))
		if r.Header.Get("Metadata") != "true" {
			t.Error("the header is missing")
		}
		w.Header().Set("ETag", "e1")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(codes[min(n, len(codes))-1])
		_, _ = io.WriteString(w, r.URL.RequestURI())
	}))
	t.Cleanup(server.Close)
	c, closeIt := New(Config{URL: server.URL, Header: [2]string{"Metadata", "true"}, Pause: time.Millisecond})
	t.Cleanup(closeIt)
	return c, asked
}

func TestGet(t *testing.T) {
	for _, tt := range []struct {
		name    string
		codes   []int
		asked   int
		ok      bool
		missing bool
	}{
		{"it is there", []int{200}, 1, true, false},
		{"it is there after a while", []int{500, 429, 410, 200}, 4, true, false},
		{"it is not there", []int{404}, 1, false, true},
		{"the request is wrong", []int{400}, 1, false, false},
		{"it is elsewhere", []int{302}, 1, false, false},
		{"it never answers", []int{503}, 5, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, asked := answers(t, tt.codes...)
			got, err := c.Get(t.Context(), "/a/b", url.Values{"q": {"1 2"}})
			if int(asked.Load()) != tt.asked || (err == nil) != tt.ok || Missing(err) != tt.missing {
				t.Errorf("asked %d times, %v; want %d", asked.Load(), err, tt.asked)
			}
			if tt.ok && (string(got.Body) != "/a/b?q=1+2" || got.ETag != "e1") {
				t.Errorf("answer is %q, %q", got.Body, got.ETag)
			}
			if code := tt.codes[len(tt.codes)-1]; !tt.ok && !strings.Contains(err.Error(), http.StatusText(code)) {
				t.Errorf("%v does not say %d", err, code)
			}
		})
	}
}

func TestGetEndsWithContext(t *testing.T) {
	c, _ := answers(t, slices.Repeat([]int{500}, 1000)...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, "/", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("returned %v", err)
	}
}
