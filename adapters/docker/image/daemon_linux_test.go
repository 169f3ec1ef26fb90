package image_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

// bounce kills the daemon and starts it again.
func bounce(tb testing.TB) {
	tb.Helper()
	daemon.Kill()
	if err := daemon.Launch(); err != nil {
		tb.Error(err)
	}
}

// troubled calls a function when half of it was read.
type troubled struct {
	io.Reader
	left    int
	trouble func()
}

func (r *troubled) Read(p []byte) (int, error) {
	if r.left <= 0 {
		r.trouble()
	}
	n, err := r.Reader.Read(p[:min(len(p), 64<<10)])
	r.left -= n
	return n, err
}

func TestDaemonThatIsRestartedWhileAnImageIsLoaded(t *testing.T) {
	archive := saved(t)
	once := sync.OnceFunc(func() { bounce(t) })
	opened := 0
	f := func(context.Context, fetch.Reference) (fetch.Content, error) {
		return fetch.Content{Key: "artifact:troubled", Open: func(context.Context) (io.ReadCloser, int64, error) {
			opened++
			return io.NopCloser(&troubled{bytes.NewReader(archive), len(archive) / 2, once}), int64(len(archive)), nil
		}}, nil
	}
	_, log, err := acquire(t, open(t, image.Config{}), archiveRef, f)
	if err != nil || opened != 2 || !strings.Contains(log, "will try again") {
		t.Errorf("%v, after %d attempts:\n%s", err, opened, log)
	}
}

func TestDaemonThatIsRestartedWhileAnImageIsPulled(t *testing.T) {
	r := serve(t, "")
	once := sync.OnceFunc(func() { bounce(t) })
	r.before = func() { once() }
	_, log, err := acquire(t, open(t, image.Config{}), r.tagged(), nil)
	if err != nil || !strings.Contains(log, "will try again") {
		t.Errorf("%v:\n%s", err, log)
	}
}
