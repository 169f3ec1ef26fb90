// Package trace finds what programs leave behind on a machine: processes,
// mounts, networks, control groups, users and files. It looks at the namespaces
// that this process is in.
package trace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Traces are what there is, by kind. What belongs to one kind is named as an
// operator would name it.
type Traces map[string][]string

// The kinds of traces.
const (
	Processes = "process"
	Mounts    = "mount"
	Links     = "network"
	Users     = "user"
	Files     = "file"
)

// Take returns what there is now. Of files it finds those below the
// directories.
func Take(dirs ...string) (Traces, error) {
	t := Traces{}
	for kind, find := range map[string]func() ([]string, error){
		Processes: processes, Mounts: mounts, Links: links, Users: users,
		Files: func() ([]string, error) { return files(dirs) },
	} {
		found, err := find()
		if err != nil {
			return nil, fmt.Errorf("look for traces of kind %s: %w", kind, err)
		}
		slices.Sort(found)
		t[kind] = found
	}
	return t, nil
}

// Add adds each line that a command prints as one of a kind.
func (t Traces) Add(ctx context.Context, kind, command string, args ...string) error {
	out, err := exec.CommandContext(ctx, command, args...).Output() //nolint:gosec // a caller's constant
	if err != nil {
		return fmt.Errorf("look for traces of kind %s: %w", kind, err)
	}
	for line := range strings.Lines(string(out)) {
		t[kind] = append(t[kind], strings.TrimSpace(line))
	}
	return nil
}

// Since returns what there is in t and was not there before, each with its kind.
func (t Traces) Since(before Traces) []string {
	var added []string
	for _, kind := range slices.Sorted(maps.Keys(t)) {
		for _, one := range t[kind] {
			if !slices.Contains(before[kind], one) {
				added = append(added, kind+" "+one)
			}
		}
	}
	return added
}

// processes returns every process, with what tells it from others that have had
// its number.
func processes() ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat")) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		const state, start = 0, 22 - 3 // of the fields from the third on
		if len(fields) <= start || fields[state] == "Z" {
			continue // somebody will reap it
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // a file of the kernel; the command is for whoever reads it
		found = append(found, fmt.Sprintf("%s started at %s: %s", filepath.Base(dir), fields[start], strings.Join(strings.Fields(strings.ReplaceAll(string(line), "\x00", " ")), " ")))
	}
	return found, nil
}

// mounts returns the points of all mounts, with how often each is one.
func mounts() ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	points := map[string]int{}
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points[fields[4]]++
		}
	}
	return counted(points), nil
}

// counted returns the keys, each as often as it counts.
func counted(counts map[string]int) []string {
	var found []string
	for name, n := range counts {
		for i := range n {
			found = append(found, name+strings.Repeat(" again", i))
		}
	}
	return found
}

func links() ([]string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, i := range interfaces {
		found = append(found, i.Name)
	}
	return found, nil
}

func users() ([]string, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(passwd)) {
		name, _, _ := strings.Cut(line, ":")
		found = append(found, name)
	}
	return found, nil
}

func files(dirs []string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			found = append(found, path)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
