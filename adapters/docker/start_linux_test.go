package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// silent is a daemon that starts the first container of a task, but goes away
// before it has said so, and once the task has ended, if it has begun.
type silent struct {
	server
	host string
}

func (s silent) Host() string { return s.host }

func newSilent(t *testing.T) silent {
	t.Helper()
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var went atomic.Bool
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(daemon.Host(), "unix://"))
		}},
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasSuffix(r.Request.URL.Path, "/start") || !went.CompareAndSwap(false, true) {
				return nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			id := filepath.Base(filepath.Dir(r.Request.URL.Path))
			wait := c.ContainerWait(ctx, id, client.ContainerWaitOptions{})
			select {
			case <-wait.Result:
			case <-wait.Error:
			}
			panic(http.ErrAbortHandler)
		},
	}
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: proxy}}
	s.Start()
	t.Cleanup(s.Close)
	return silent{daemon, "unix://" + socket}
}

func TestTaskIsExecutedOnceThoughItIsStartedAgain(t *testing.T) {
	e := openOn(t, newSilent(t), docker.Config{Egress: docker.EgressNone})
	v, err := e.NewVolume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	log := newRecord()
	b, err := e.NewBuilder(t.Context(), options(t, shell("echo again >> /volume/times; cat /volume/times"), log))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.(engine.VolumeAttacher).AttachVolume("/volume", v, false); err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := finish(t, s)
	if n := strings.Count(log.String(), "again\n"); n != 1 || !r.Result().Success {
		t.Errorf("the task was executed %d times, with the result %+v:\n%s", n, r.Result(), log)
	}
}
