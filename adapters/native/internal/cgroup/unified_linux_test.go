package cgroup

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestUnifiedOfTheKernel has processes in groups of the kernel's own hierarchy of
// version 2. It may have no controllers, which TestUnified is for.
func TestUnifiedOfTheKernel(t *testing.T) {
	dir := filepath.Join(kernelHierarchy(t), "taskcluster-worker-test")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	tree := &Tree{unified: true, memory: dir, directories: []string{dir}}
	// Which is also what a killed worker is swept up with.
	for _, tt := range []struct {
		name string
		kill func(*Group) error
	}{
		{"removed", func(g *Group) error { return g.Remove(t.Context()) }},
		{"swept", func(*Group) error { return tree.Sweep(t.Context(), nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := tree.New(tt.name, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			task := populate(t, g)
			if err := g.rmdir(); err == nil {
				t.Error("a group with processes can be removed")
			}
			if err := tt.kill(g); err != nil {
				t.Error(err)
			}
			if err := task.Wait(); task.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("the process ended with %v, want SIGKILL", err)
			}
			if _, err := os.Stat(filepath.Join(dir, tt.name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the group is left: %v", err)
			}
		})
	}
	if err := tree.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tree is left: %v", err)
	}
}

// kernelHierarchy returns where the hierarchy of version 2 is mounted.
func kernelHierarchy(t *testing.T) string {
	t.Helper()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	mounts := parseMounts(string(mountinfo))
	i := slices.IndexFunc(mounts, func(m mount) bool { return m.unified })
	if i < 0 {
		t.Fatal("this host has no hierarchy of control groups of version 2")
	}
	return mounts[i].dir
}

// populate starts processes in a group, as a supervisor does, of which one is in
// a session of its own and none heeds SIGTERM.
func populate(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	entries, threads, err := g.Open()
	if err != nil || threads || len(entries) != 1 {
		t.Fatalf("opened %v, %v, %v", entries, threads, err)
	}
	defer func() { _ = entries[0].Close() }()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "trap '' TERM; setsid sleep 3605.25 & echo ready; exec sleep 3605.25")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(entries[0].Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("read %q, %v", line, err)
	}
	procs, err := os.ReadFile(filepath.Join(g.tree.memory, g.name, "cgroup.procs"))
	if n := len(strings.Fields(string(procs))); err != nil || n != 2 {
		t.Errorf("%d processes are in the group, want 2: %v", n, err)
	}
	return cmd
}
