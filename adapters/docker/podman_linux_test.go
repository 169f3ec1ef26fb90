package docker_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/ports/engine/enginetest"
)

// startPodman starts a service of Podman for a test.
func startPodman(t *testing.T) *dockertest.Podman {
	t.Helper()
	p, err := dockertest.StartPodman()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Log())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestConformanceWithPodman(t *testing.T) {
	p := startPodman(t)
	enginetest.Test(t, func(tb testing.TB) enginetest.Harness {
		tb.Helper()
		return newHarness(tb, p, docker.Config{Capacity: 2, Egress: docker.EgressNone})
	})
}

func TestTasksWithPodman(t *testing.T) {
	t.Parallel()
	e := openOn(t, startPodman(t), docker.Config{Capacity: 2, Egress: docker.EgressInternet, Limits: docker.Limits{MemoryBytes: 64 << 20, PIDs: 100}})
	for range 2 {
		if r, log := run(t, e, shell("ls /sys/class/net; grep CapEff /proc/self/status")); !r.Result().Success || !strings.Contains(log.String(), "eth0") {
			t.Errorf("a task in a network has the result %+v:\n%s", r.Result(), log)
		}
	}
	// Podman does not tell what killed it.
	r, log := run(t, e, shell("x=a; while :; do x=$x$x; done"))
	if got := r.Result(); got.Success || got.ExitCode != 137 && !got.OOM {
		t.Errorf("a task that eats memory has the result %+v:\n%s", got, log)
	}
	p := shell("echo mine > /tmp/file; echo none > /tmp/closed; chmod 0 /tmp/closed")
	p["user"] = "worker"
	r, log = run(t, e, p)
	if got, err := fs.ReadFile(r.FS(), "tmp/file"); string(got) != "mine\n" || err != nil {
		t.Errorf("a file has %q, %v:\n%s", got, err, log)
	}
	if _, err := fs.ReadFile(r.FS(), "tmp/closed"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that its user may not read: %v", err)
	}
}
