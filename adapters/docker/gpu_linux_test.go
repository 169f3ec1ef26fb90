package docker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// another starts a daemon beside that of all tests, which it must not disturb.
// Tests that use no other may run in parallel.
func another(tb testing.TB, args ...string) *dockertest.Daemon {
	tb.Helper()
	d, err := dockertest.Start(append([]string{"--bridge=none", "--iptables=false"}, args...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

// A daemon gives GPUs to containers if it finds the hook of the driver, which
// has the rest to do.
func TestGPUsAreGivenToOneTaskAtATime(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "nvidia-container-runtime-hook"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	d := another(t)
	e := openOn(t, d, docker.Config{Egress: docker.EgressNone, Devices: docker.Devices{GPUs: []string{"0", "GPU-7", "2"}}})
	gpus := func(n int) map[string]any {
		p := shell("echo ha''s: $NVIDIA_VISIBLE_DEVICES; test -z \"$STAY\" || sleep 1000")
		p["capabilities"] = map[string]any{"devices": map[string]any{"gpus": n}}
		return p
	}
	first := newRecord()
	b, err := e.NewBuilder(t.Context(), options(t, gpus(2), first))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetEnv("STAY", "1"); err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first.has(t.Context(), t, "has: 0,GPU-7\n")
	if _, log := run(t, e, gpus(1)); !strings.Contains(log.String(), "has: 2\n") {
		t.Errorf("another task:\n%s", log)
	}
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if r, log := run(t, e, shell("echo ha''s: $NVIDIA_VISIBLE_DEVICES.")); !strings.Contains(log.String(), "has: .\n") {
		t.Errorf("a task that asks for none, with the result %+v:\n%s", r.Result(), log)
	}
}

// That a host lacks the driver is not the fault of a task.
func TestGPUsOfADaemonWithoutTheirDriver(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Devices: docker.Devices{GPUs: []string{"0"}}})
	p := shell("true")
	p["capabilities"] = map[string]any{"devices": map[string]any{"gpus": 1}}
	b, err := e.NewBuilder(t.Context(), options(t, p, newRecord()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Start(t.Context())
	if f := fault.Classify(err); f == nil || f.Kind != fault.Unavailable {
		t.Errorf("got %v", err)
	}
}
