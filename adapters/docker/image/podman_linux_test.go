package image_test

import (
	"log/slog"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestImagesWithPodman(t *testing.T) {
	r := serve(t, "secret")
	p, err := dockertest.StartPodman(r.host)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	s, err := image.New(image.Config{
		Pull: image.PullMissing, Registries: []image.Registry{{Host: r.host, Username: "user", Password: "secret", Public: true}},
	})(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	acquire := func(r docker.ImageRef, f fetch.Fetch) (docker.Image, string, error) {
		log := new(taskLog)
		i, err := s.Acquire(t.Context(), r, docker.ImageOptions{Log: tasklog.New(log), Fetch: f})
		return i, log.String(), err
	}
	for layout, archive := range map[string][]byte{"old": saved(t), "OCI": ociLayout(t)} {
		src := &source{archive: archive, key: "artifact:" + layout}
		for range 2 {
			i, log, err := acquire(archiveRef, src.fetch)
			if err != nil || i.ID == "" || i.ArchiveHash == "" {
				t.Errorf("an archive in the %s layout: %+v, %v\n%s", layout, i, err, log)
			}
		}
		if n := src.opened.Load(); n != 1 {
			t.Errorf("an archive in the %s layout was fetched %d times", layout, n)
		}
	}
	for _, ref := range []docker.ImageRef{r.tagged(), r.digested(), {Name: dockertest.Image}} {
		if i, log, err := acquire(ref, nil); err != nil || i.ID == "" {
			t.Errorf("%s: %+v, %v\n%s", ref.Name, i, err, log)
		}
	}
	_, _, err = acquire(docker.ImageRef{Name: r.host + "/test/missing:1"}, nil)
	wantFault(t, err, fault.Malformed, "cannot be pulled")
}
