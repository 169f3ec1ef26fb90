package trace

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSinceNamesWhatWasAdded(t *testing.T) {
	before := Traces{Processes: {"1 init"}, Files: {"/a"}, Users: {"root"}}
	after := Traces{Processes: {"1 init", "7 sleep"}, Files: {"/a", "/b"}, Users: {"root"}, Links: {"eth0"}}
	want := []string{"file /b", "network eth0", "process 7 sleep"}
	if diff := cmp.Diff(want, after.Since(before)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := before.Since(after); len(got) > 0 {
		t.Errorf("what is gone is named: %v", got)
	}
}

// added returns what is left after f that was not there before.
func added(t *testing.T, dir string, f func()) []string {
	t.Helper()
	before, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	f()
	after, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	return after.Since(before)
}

func has(traces []string, kind, part string) bool {
	return slices.ContainsFunc(traces, func(one string) bool { return strings.HasPrefix(one, kind+" ") && strings.Contains(one, part) })
}

func TestTracesOfEachKindAreFound(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sleep", "3600.5")
	got := added(t, dir, func() {
		if err := os.WriteFile(filepath.Join(dir, "left"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	if !has(got, Files, "/left") || !has(got, Processes, "sleep 3600.5") {
		t.Errorf("found %q", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

func TestFixedTraces(t *testing.T) {
	all, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	for kind, name := range map[string]string{Mounts: "/proc", Links: "lo", Users: "root"} {
		if !slices.Contains(all[kind], name) {
			t.Errorf("of kind %s, found %q", kind, all[kind])
		}
	}
}

func TestTracesThatCommandsFind(t *testing.T) {
	all := Traces{}
	if err := all.Add(t.Context(), "container", "printf", `a b\nc\n`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Traces{"container": {"a b", "c"}}, all); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := all.Add(t.Context(), "container", "false"); err == nil || !strings.Contains(err.Error(), "of kind container") {
		t.Errorf("a command that fails: %v", err)
	}
}

func TestGroupsThatAreLeft(t *testing.T) {
	dir := t.TempDir()
	info := "30 1 0:1 / " + dir + "/memory rw - cgroup cgroup rw,memory\n" +
		"31 1 0:2 / " + dir + "/systemd rw - cgroup cgroup rw,name=systemd\n" +
		"32 1 0:3 / " + dir + "/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 1 0:4 / " + dir + "/unified rw - cgroup2 cgroup2 rw\n"
	for _, made := range []string{"memory/worker/task", "unified/worker", "cpu/worker/task", "systemd/own/child"} {
		if err := os.MkdirAll(filepath.Join(dir, made), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	g := Groups{"4:memory:/worker/task": {}, "0::/worker/task": {}, "3:cpu,cpuacct:/worker/gone": {}, "9:name=systemd:/own/child": {}, "bad": {}}
	want := []string{dir + "/cpu/worker", dir + "/memory/worker", dir + "/memory/worker/task", dir + "/systemd/own/child", dir + "/unified/worker"}
	if diff := cmp.Diff(want, g.left(info, "9:name=systemd:/own\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGroupsOfEarlierProcessesDoNotCount(t *testing.T) {
	g := Groups{"4:memory:/earlier": {}, "4:memory:/worker": {}}
	g.Without(Groups{"4:memory:/earlier": {}, "4:memory:/other": {}})
	if diff := cmp.Diff(Groups{"4:memory:/worker": {}}, g); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

func TestGroupsOfOtherProcessesAreWatched(t *testing.T) {
	g := Groups{}
	if err := g.Watch(); err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(own)) {
		if _, ok := g[strings.TrimSuffix(line, "\n")]; ok {
			t.Errorf("it is in %s itself", line)
		}
	}
	if os.Geteuid() != 0 {
		t.Fatal("making control groups needs root")
	}
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(top, "pids")); err == nil {
		top = filepath.Join(top, "pids") // version 1
	}
	dir := filepath.Join(top, "trace-test-"+filepath.Base(t.TempDir()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(t.Context(), "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Watch(); err != nil {
		t.Fatal(err)
	}
	left, err := g.Left()
	if err != nil || !slices.Contains(left, dir) {
		t.Errorf("left are %v, %v", left, err)
	}
}
