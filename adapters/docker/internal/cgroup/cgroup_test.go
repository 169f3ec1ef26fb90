package cgroup

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHierarchiesAreFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		title, mountinfo, cpu, memory string
		unified, want                 bool
	}{
		{
			"version 1", "31 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", false, true,
		},
		{
			"version 1, with an empty one of version 2", "31 24 0:29 / /c rw - cgroup cgroup rw,cpuacct\n32 24 0:30 / /m rw - cgroup cgroup rw,memory\n33 24 0:31 / /u rw - cgroup2 cgroup2 rw\n",
			"/c", "/m", false, true,
		},
		{"version 2", "31 24 0:29 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup", "/sys/fs/cgroup", true, true},
		{"as in a container", "31 24 0:29 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "", "", false, false},
		{"none", "31 24 0:29 / / rw - ext4 /dev/sda rw\nbroken\n", "", "", false, false},
	} {
		got, ok := open("x", tt.mountinfo)
		if ok != tt.want || ok && (got.cpu != tt.cpu || got.memory != tt.memory || got.unified != tt.unified) {
			t.Errorf("%s: got %+v, %v", tt.title, got, ok)
		}
	}
}

// TestUnified works on files in place of the kernel's, whose hierarchy of
// version 2 has no controllers on hosts that use version 1.
func TestUnified(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree, ok := open("tree", "31 24 0:29 / "+root+" rw - cgroup2 cgroup2 rw\n")
	if !ok {
		t.Fatal("there is no tree")
	}
	parent := tree.Parent("task")
	if got := tree.Read(parent); got != (Usage{}) {
		t.Errorf("a group that is not there has used %+v", got)
	}
	dir := filepath.Join(root, parent)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"cpu.stat": "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods x\n", "memory.peak": "4096\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Usage{User: 2 * time.Millisecond, Kernel: time.Millisecond, PeakMemory: 4096}
	if got := tree.Read(parent); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParentsAreSwept(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree, _ := open("tree", "31 24 0:29 / "+root+" rw - cgroup2 cgroup2 rw\n")
	for _, name := range []string{"gone", "kept", "dead/container", "busy/container"} {
		if err := os.MkdirAll(filepath.Join(root, "tree", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Files that are not the kernel's keep a directory as processes keep a group.
	if err := os.WriteFile(filepath.Join(root, "tree/busy/container/process"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tree.Sweep(tree.Parent("kept"))
	for name, want := range map[string]bool{"gone": false, "dead": false, "kept": true, "busy": true} {
		if _, err := os.Stat(filepath.Join(root, "tree", name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tree.Remove(tree.Parent("kept")); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(tree.Parent("kept")); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := tree.Remove(tree.Parent("busy")); err == nil {
		t.Error("a group with a container in it is removed")
	}
}
