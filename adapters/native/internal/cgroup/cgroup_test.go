package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsesHierarchies(t *testing.T) {
	const mountinfo = `50 49 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
53 49 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
59 49 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
60 45 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw
broken
`
	want := []mount{
		{dir: "/sys/fs/cgroup/cpu,cpuacct", root: "/", controllers: []string{"rw", "cpu", "cpuacct"}},
		{dir: "/sys/fs/cgroup/memory", root: "/docker/abc", controllers: []string{"rw", "memory"}},
		{dir: "/sys/fs/cgroup/unified", root: "/", unified: true},
	}
	if diff := cmp.Diff(want, parseMounts(mountinfo), cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("hierarchies (-want +got):\n%s", diff)
	}
	groups := parseGroups("4:memory:/docker/abc/x\n1:cpu,cpuacct:/\n0::/system.slice/a:b\nbroken\n")
	wantGroups := map[string]string{"memory": "/docker/abc/x", "cpu": "/", "cpuacct": "/", "": "/system.slice/a:b"}
	if diff := cmp.Diff(wantGroups, groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	for own, want := range map[string]string{
		"/docker/abc/x": "/sys/fs/cgroup/memory/x", "/docker/abc": "/sys/fs/cgroup/memory", "/elsewhere": "/sys/fs/cgroup/memory",
	} {
		if got := parseMounts(mountinfo)[1].path(own); got != want {
			t.Errorf("the group %s is at %s, want %s", own, got, want)
		}
	}
}

// TestUnified works on files in place of the kernel's, whose hierarchy of
// version 2 has no controllers on hosts that use version 1.
func TestUnified(t *testing.T) {
	root := t.TempDir()
	fake := func(dir string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.kill"} {
			if err := os.WriteFile(filepath.Join(root, dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	fake(".")
	fake("worker")
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := open("worker", []mount{{dir: root, root: "/", unified: true}}, map[string]string{"": "/"})
	if err != nil {
		t.Fatal(err)
	}
	if !tree.unified || read(t, root, "worker/cgroup.subtree_control") != "+memory +pids +cpu" {
		t.Errorf("controllers are not enabled: %+v", tree)
	}
	fake("worker/task")
	g := &Group{tree: tree, name: "task"}
	if err := g.limit(Limits{MemoryBytes: 1 << 20, CPUs: 1.5, PIDs: 7}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"memory.max": "1048576", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "7"} {
		if got := read(t, root, "worker/task/"+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name, content := range map[string]string{"memory.peak": "12345\n", "memory.events": "low 0\noom 3\noom_kill 2\n"} {
		if err := os.WriteFile(filepath.Join(root, "worker/task", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := g.Usage(), (Usage{PeakMemory: 12345, OOMKills: 2}); got != want {
		t.Errorf("usage is %+v, want %+v", got, want)
	}
	if err := g.kill(); err != nil || read(t, root, "worker/task/cgroup.kill") != "1" {
		t.Errorf("kill returned %v", err)
	}
	files, threads, err := g.Open()
	if err != nil || threads || len(files) != 1 {
		t.Fatalf("Open returned %v, %v, %v", files, threads, err)
	}
	_ = files[0].Close()
}

func TestNoControllers(t *testing.T) {
	if _, err := open("worker", []mount{{dir: t.TempDir(), root: "/", unified: true}}, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Open returned %v, want ErrUnavailable", err)
	}
}

// TestKernel works on the groups of this host.
func TestKernel(t *testing.T) {
	tree, err := Open("taskcluster-worker-cgroup-test")
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.New("task", Limits{MemoryBytes: 64 << 20, CPUs: 0.5, PIDs: 10})
	if err != nil {
		t.Fatal(err)
	}
	if u := g.Usage(); u.OOMKills != 0 {
		t.Errorf("an empty group has the usage %+v", u)
	}
	if _, err := tree.New("task", Limits{}); err == nil {
		t.Error("two groups have one name")
	}
	if err := tree.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, d := range tree.directories {
		if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", d, err)
		}
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
