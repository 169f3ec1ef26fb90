// Package cgroup reads what containers have used from control groups of version
// 1 or 2. The group of a container goes with its last process, and with it what
// it has counted: so each container is put into a group of its own, which stays
// until it is removed.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what the processes of a group have used.
type Usage struct {
	User, Kernel time.Duration
	PeakMemory   int64 // bytes, including the page cache; 0 if it is not known
}

// Tree is where the groups of a worker's containers are.
type Tree struct {
	name        string
	unified     bool
	hierarchies []string // where they are mounted
	cpu, memory string   // two of them
}

// Open returns the tree of a name. It reports whether there is any: groups may
// not be mounted where this process sees them.
func Open(name string) (*Tree, bool) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, false
	}
	return open(name, string(mounts))
}

func open(name, mountinfo string) (*Tree, bool) {
	t := &Tree{name: name}
	unified := ""
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 || fields[3] != "/" {
			continue // what is not seen from the root is not seen as the daemon does
		}
		switch kind[0] {
		case "cgroup":
			options := strings.Split(kind[2], ",")
			if slices.Contains(options, "cpuacct") {
				t.cpu = fields[4]
			}
			if slices.Contains(options, "memory") {
				t.memory = fields[4]
			}
		case "cgroup2":
			unified = fields[4]
		default:
			continue
		}
		t.hierarchies = append(t.hierarchies, fields[4])
	}
	if t.memory == "" && t.cpu == "" && unified != "" {
		t.unified, t.cpu, t.memory = true, unified, unified
	}
	return t, t.memory != "" && t.cpu != ""
}

// Parent returns the group that a container is put into, as the daemon is told.
func (t *Tree) Parent(name string) string { return "/" + t.name + "/" + name }

// Read returns what the containers below a parent have used so far. What cannot
// be read is zero.
func (t *Tree) Read(parent string) Usage {
	cpu, memory := filepath.Join(t.cpu, parent), filepath.Join(t.memory, parent)
	if !t.unified {
		return Usage{
			User:       time.Duration(number(cpu, "cpuacct.usage_user")),
			Kernel:     time.Duration(number(cpu, "cpuacct.usage_sys")),
			PeakMemory: number(memory, "memory.max_usage_in_bytes"),
		}
	}
	u := Usage{PeakMemory: number(memory, "memory.peak")}
	stat, _ := os.ReadFile(filepath.Join(cpu, "cpu.stat")) //nolint:gosec // a file of the kernel
	for s := bufio.NewScanner(bytes.NewReader(stat)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "user_usec":
			u.User = time.Duration(n) * time.Microsecond
		case name == "system_usec":
			u.Kernel = time.Duration(n) * time.Microsecond
		}
	}
	return u
}

func number(dir, file string) int64 {
	content, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // a file of the kernel
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// remove removes a group with those below it, which a daemon that was killed has
// left of containers. The kernel does not let go of a group with processes.
func remove(dir string) error {
	entries, _ := os.ReadDir(dir) // there may be none
	for _, e := range entries {
		if e.IsDir() {
			_ = remove(filepath.Join(dir, e.Name())) // then dir is not removed either
		}
	}
	return os.Remove(dir)
}

// Remove removes a parent, below which no container is left.
func (t *Tree) Remove(parent string) error {
	var errs []error
	for _, h := range t.hierarchies {
		if err := remove(filepath.Join(h, parent)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Sweep removes the parents that no container is below, but for those to keep,
// and the tree itself if nothing is left in it.
func (t *Tree) Sweep(keep ...string) {
	for _, h := range t.hierarchies {
		root := filepath.Join(h, t.name)
		entries, _ := os.ReadDir(root) // there is none before the first container
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(keep, t.Parent(e.Name())) {
				_ = remove(filepath.Join(root, e.Name())) // fails if there is a container
			}
		}
		_ = os.Remove(root) // fails if anything is left
	}
}
