package docker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// flakyImages fails for some time.
type flakyImages struct {
	Images
	err   error
	fails int // how often
	calls int
}

func (f *flakyImages) Acquire(context.Context, ImageRef, ImageOptions) (Image, error) {
	if f.calls++; f.calls <= f.fails {
		return Image{}, fault.Unavailablef(f.err, "the Docker daemon does not say whether it has image x")
	}
	return Image{ID: "x"}, nil
}

func TestDaemonThatGoesAwayWhileAnImageIsAcquired(t *testing.T) {
	nobody, err := client.New(client.WithHost("unix://" + t.TempDir() + "/none"))
	if err != nil {
		t.Fatal(err)
	}
	_, gone := nobody.Ping(t.Context(), client.PingOptions{})
	if !client.IsErrConnectionFailed(gone) {
		t.Fatalf("reaching nobody is %v", gone)
	}
	for _, tt := range []struct {
		name  string
		err   error
		fails int
		want  fault.Kind // 0 if it succeeds
		calls int
	}{
		{"for a moment", gone, 3, 0, 4},
		{"for good", gone, 1 << 30, fault.Shutdown, 0},
		{"not at all, but the registry", errors.New("503"), 1 << 30, fault.Unavailable, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				images := &flakyImages{err: tt.err, fails: tt.fails}
				e := &Engine{images: images, log: slog.New(slog.DiscardHandler)}
				i, err := e.acquireImage(t.Context(), ImageRef{Name: "x"}, ImageOptions{})
				if tt.want == 0 && (err != nil || i.ID != "x") || tt.want != 0 && (err == nil || fault.Classify(err).Kind != tt.want) {
					t.Errorf("got %v", err)
				}
				if tt.calls > 0 && images.calls != tt.calls {
					t.Errorf("asked %d times, want %d", images.calls, tt.calls)
				}
			})
		})
	}
}
