package docker_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// wantTask runs a task that fails at the end, and checks all that an engine has
// to do with it.
func wantTask(t *testing.T, e *docker.Engine, p map[string]any, want, file string) {
	t.Helper()
	r, log := run(t, e, p)
	if got := r.Result(); got.ExitCode != 3 || got.Success || got.User+got.Kernel <= 0 || got.PeakMemory <= 0 {
		t.Errorf("result %+v", got)
	}
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
	if got, err := fs.ReadFile(r.FS(), file); string(got) != "content\n" || err != nil {
		t.Errorf("a file has %q, %v", got, err)
	}
}

func TestTasksUnderGVisor(t *testing.T) {
	t.Parallel()
	runsc, err := exec.LookPath("runsc")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(t.TempDir(), "runsc")
	script := fmt.Sprintf("#!/bin/sh\nexec %s --platform=ptrace --network=none \"$@\"\n", runsc)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e := openOn(t, another(t, "--add-runtime=runsc="+wrapper), docker.Config{
		Egress: docker.EgressNone, Runtime: "runsc",
		OrphanTimeout: -1, // though locks of the host are not seen from there
	})
	p := map[string]any{"command": [][]string{{"true"}, {"sh", "-c", "cat /proc/version; dmesg | head -1; echo content > /home/file; exit 3"}}}
	wantTask(t, e, p, "Starting gVisor", "home/file")
	log := newRecord()
	s := begin(t, e, shell("echo rea''dy; sleep 1000"), log)
	log.has(t.Context(), t, "ready")
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if got := finish(t, s).Result(); !got.Killed {
		t.Errorf("a task that is killed has the result %+v", got)
	}
}

// remapped starts a daemon that maps the users of containers to those of the
// host from 200000 on.
func remapped(t *testing.T) server {
	t.Helper()
	for _, name := range []string{"/etc/subuid", "/etc/subgid"} {
		file := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(file, []byte("nobody:200000:65536\nnogroup:200000:65536\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		ip(t, "touch", name)
		ip(t, "mount", "--bind", file, name)
		t.Cleanup(func() {
			// The kernel unmounts a file that others put a new one in the place
			// of, outside of this mount namespace: as when they make a user.
			if err := syscall.Unmount(name, 0); err != nil && !errors.Is(err, syscall.EINVAL) {
				t.Errorf("unmount %s: %v", name, err)
			}
		})
	}
	return another(t, "--userns-remap=nobody:nogroup")
}

func TestTasksInUserNamespaces(t *testing.T) {
	d := remapped(t)
	e := openOn(t, d, docker.Config{Egress: docker.EgressInternet})
	p := shell("cat /proc/self/uid_map; echo content > /tmp/file; exit 3")
	wantTask(t, e, p, " 200000 ", "tmp/file")
	p["user"] = "worker"
	p["command"] = [][]string{{"true"}, {"sh", "-c", "id -un; ls /sys/class/net; umask 077; echo content > /tmp/file; echo x > /tmp/closed; chmod 0 /tmp/closed; exit 3"}}
	wantTask(t, e, p, "worker\neth0\nlo\n", "tmp/file")
	r, _ := run(t, e, p)
	if _, err := fs.ReadFile(r.FS(), "tmp/closed"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that its user may not read: %v", err)
	}

	exempt := openOn(t, d, docker.Config{Egress: docker.EgressNone, UserNamespace: "host", Instance: "exempt"})
	wantTask(t, exempt, shell("cat /proc/self/uid_map; echo content > /tmp/file; exit 3"), " 0 4294967295", "tmp/file")
}

func TestProxiesAndVolumesInUserNamespaces(t *testing.T) {
	e := openOn(t, remapped(t), docker.Config{Egress: docker.EgressInternet})
	v, err := e.NewVolume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	log := newRecord()
	p := shell("wget -q -O - $URL; echo kept > /volume/file; cat /volume/file")
	p["user"] = "worker"
	b, err := e.NewBuilder(t.Context(), options(t, p, log))
	if err != nil {
		t.Fatal(err)
	}
	url, err := b.(engine.ProxyAttacher).AttachProxy("greeter", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "hello")
	}))
	if err := errors.Join(err, b.SetEnv("URL", url), b.(engine.VolumeAttacher).AttachVolume("/volume", v, false)); err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := finish(t, s); !r.Result().Success || !strings.Contains(log.String(), "hello\nkept\n") {
		t.Errorf("result %+v:\n%s", r.Result(), log)
	}
}
