// Package cgroup confines the processes of a task in control groups of version
// 1 or 2, whichever has the controllers on this host.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrUnavailable is returned by Open where this process cannot make groups.
var ErrUnavailable = errors.New("cgroup: no usable controllers")

// Limits is what the processes of a group may use together. Zero is no limit.
type Limits struct {
	MemoryBytes int64
	CPUs        float64
	PIDs        int
}

// Usage is what the processes of a group have used together.
type Usage struct {
	PeakMemory int64 // bytes, including the page cache; 0 if it is not known
	OOMKills   int   // processes killed because the group was out of memory
}

// Tree is where a worker makes its groups.
type Tree struct {
	unified     bool     // version 2
	memory      string   // directory of the controller, or that of all of them
	pids        string   // empty in version 2
	cpu         string   // empty in version 2
	directories []string // all directories, each once
}

// controllers are those that limits need.
var controllers = []string{"memory", "pids", "cpu"} //nolint:gochecknoglobals // a constant

// Open returns the tree with the given name, and makes it: outside the groups
// that this process is in where it may, since a service manager that ends one of
// those ends all that is below, and else inside.
func Open(name string) (*Tree, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return open(name, parseMounts(string(mounts)), parseGroups(string(own)))
}

func open(name string, mounted []mount, own map[string]string) (*Tree, error) {
	var errs error
	for _, m := range mounted {
		if !m.unified {
			continue
		}
		// A group that has processes cannot hand controllers on, unless it is
		// the root. A service manager usually puts the worker in such a group.
		for _, parent := range []string{m.dir, m.path(own[""])} {
			t, err := openUnified(filepath.Join(parent, name), m.dir)
			if err == nil {
				return t, nil
			}
			errs = errors.Join(errs, err)
		}
	}
	t := &Tree{}
	for _, c := range controllers {
		i := slices.IndexFunc(mounted, func(m mount) bool { return slices.Contains(m.controllers, c) })
		if i < 0 {
			return nil, errors.Join(ErrUnavailable, errs)
		}
		dir := filepath.Join(mounted[i].dir, name)
		if os.MkdirAll(dir, 0o755) != nil { //nolint:gosec // as all groups
			dir = filepath.Join(mounted[i].path(own[c]), name)
			if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as all groups
				return nil, errors.Join(ErrUnavailable, errs, err)
			}
		}
		*map[string]*string{"memory": &t.memory, "pids": &t.pids, "cpu": &t.cpu}[c] = dir
		if !slices.Contains(t.directories, dir) {
			t.directories = append(t.directories, dir)
		}
	}
	return t, nil
}

// openUnified makes a tree of version 2, with controllers enabled from root on.
func openUnified(dir, root string) (*Tree, error) {
	available, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")) //nolint:gosec // a file of the kernel
	if err != nil {
		return nil, err
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(string(available)), c) {
			return nil, fmt.Errorf("%s has no controller %q", root, c)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as all groups
		return nil, err
	}
	relative, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, err
	}
	at := root
	for _, part := range append([]string{"."}, strings.Split(relative, "/")...) {
		at = filepath.Join(at, part)
		if err := write(at, "cgroup.subtree_control", "+"+strings.Join(controllers, " +")); err != nil {
			_ = os.Remove(dir) // which stays where another tree is in it
			return nil, err
		}
	}
	return &Tree{unified: true, memory: dir, directories: []string{dir}}, nil
}

// New makes a group with limits.
func (t *Tree) New(name string, l Limits) (*Group, error) {
	g := &Group{tree: t, name: name}
	for _, d := range t.directories {
		if err := os.Mkdir(filepath.Join(d, name), 0o755); err != nil { //nolint:gosec // as all groups
			return nil, errors.Join(err, g.rmdir())
		}
	}
	if err := g.limit(l); err != nil {
		return nil, errors.Join(err, g.rmdir())
	}
	return g, nil
}

// Group returns the group of a name, which exists.
func (t *Tree) Group(name string) *Group { return &Group{tree: t, name: name} }

// Close removes the tree, with what is left in it.
func (t *Tree) Close(ctx context.Context) error {
	err := t.Sweep(ctx, nil)
	for _, d := range t.directories {
		if e := os.Remove(d); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Sweep removes all groups of the tree but those to keep, and kills the
// processes in them.
func (t *Tree) Sweep(ctx context.Context, keep []string) error {
	var names []string
	for _, d := range t.directories {
		entries, err := os.ReadDir(d)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(keep, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	var err error
	for _, name := range slices.Compact(names) {
		err = errors.Join(err, t.Group(name).Remove(ctx))
	}
	return err
}

// Group is a control group, or one in each hierarchy of version 1.
type Group struct {
	tree *Tree
	name string
}

// limit sets the limits.
func (g *Group) limit(l Limits) error {
	const period = 100_000 // microseconds
	quota := strconv.Itoa(int(l.CPUs * period))
	memory := strconv.FormatInt(l.MemoryBytes, 10)
	pids := strconv.Itoa(l.PIDs)
	var err error
	if g.tree.unified {
		dir := filepath.Join(g.tree.memory, g.name)
		if l.MemoryBytes > 0 {
			err = errors.Join(err, write(dir, "memory.max", memory),
				optional(write(dir, "memory.swap.max", "0")))
		}
		if l.CPUs > 0 {
			err = errors.Join(err, write(dir, "cpu.max", quota+" "+strconv.Itoa(period)))
		}
		if l.PIDs > 0 {
			err = errors.Join(err, write(dir, "pids.max", pids))
		}
		return err
	}
	if l.MemoryBytes > 0 {
		dir := filepath.Join(g.tree.memory, g.name)
		err = errors.Join(err, write(dir, "memory.limit_in_bytes", memory),
			optional(write(dir, "memory.memsw.limit_in_bytes", memory)))
	}
	if l.CPUs > 0 {
		dir := filepath.Join(g.tree.cpu, g.name)
		err = errors.Join(err, write(dir, "cpu.cfs_period_us", strconv.Itoa(period)),
			write(dir, "cpu.cfs_quota_us", quota))
	}
	if l.PIDs > 0 {
		// The thread that starts the commands is in the group, too.
		err = errors.Join(err, write(filepath.Join(g.tree.pids, g.name), "pids.max", strconv.Itoa(l.PIDs+1)))
	}
	return err
}

// Open opens what a process needs to enter the group. In version 1 these are
// the files that a thread writes "0" to; in version 2, where threads is false,
// it is the directory to give to clone.
func (g *Group) Open() (files []*os.File, threads bool, err error) {
	for _, d := range g.tree.directories {
		name, flag := filepath.Join(d, g.name, "tasks"), os.O_WRONLY
		if g.tree.unified {
			name, flag = filepath.Join(d, g.name), os.O_RDONLY
		}
		f, err := os.OpenFile(name, flag, 0) //nolint:gosec // a file of the kernel
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			return nil, false, err
		}
		files = append(files, f)
	}
	return files, !g.tree.unified, nil
}

// Usage returns what the group has used so far.
func (g *Group) Usage() Usage {
	dir := filepath.Join(g.tree.memory, g.name)
	peak, events := "memory.max_usage_in_bytes", "memory.oom_control"
	if g.tree.unified {
		peak, events = "memory.peak", "memory.events"
	}
	var u Usage
	if b, err := os.ReadFile(filepath.Join(dir, peak)); err == nil { //nolint:gosec // a file of the kernel
		u.PeakMemory, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // 0 is unknown
	}
	if b, err := os.ReadFile(filepath.Join(dir, events)); err == nil { //nolint:gosec // a file of the kernel
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				u.OOMKills, _ = strconv.Atoi(strings.TrimSpace(n)) // 0 is unknown
			}
		}
	}
	return u
}

// kill kills the processes in the group, which may be forking meanwhile: it is
// a last resort for those that have outlived their supervisor.
func (g *Group) kill() error {
	var err error
	for _, d := range g.tree.directories {
		dir := filepath.Join(d, g.name)
		if g.tree.unified && write(dir, "cgroup.kill", "1") == nil {
			continue
		}
		b, e := os.ReadFile(filepath.Join(dir, "cgroup.procs")) //nolint:gosec // a file of the kernel
		if e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		for line := range strings.FieldsSeq(string(b)) {
			if pid, e := strconv.Atoi(line); e == nil && pid > 1 {
				if p, e := os.FindProcess(pid); e == nil {
					_ = p.Kill() // fails if it has ended
				}
			}
		}
	}
	return err
}

// Remove removes the group, with the processes that are still in it. The kernel
// may take a moment to see that they have ended.
func (g *Group) Remove(ctx context.Context) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := g.rmdir()
		if err == nil {
			return nil
		}
		err = errors.Join(err, g.kill())
		if wait > time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (g *Group) rmdir() error {
	var err error
	for _, d := range g.tree.directories {
		if e := os.Remove(filepath.Join(d, g.name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func write(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0) //nolint:gosec // a file of the kernel
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// optional forgives that the kernel was built without something.
func optional(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
