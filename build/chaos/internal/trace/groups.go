package trace

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Groups are control groups that processes have been in.
type Groups map[string]struct{}

// Watch adds the groups that processes are in now, other than those of this
// process.
func (g Groups) Watch() error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, file := range dirs {
		groups, err := os.ReadFile(file) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(groups)) {
			if !strings.Contains(string(own), line) {
				g[strings.TrimSuffix(line, "\n")] = struct{}{}
			}
		}
	}
	return nil
}

// Without removes the groups of others.
func (g Groups) Without(others Groups) {
	maps.DeleteFunc(g, func(group string, _ struct{}) bool {
		_, ok := others[group]
		return ok
	})
}

// Left returns the directories of the groups that are still there, and of those
// that they are in.
func (g Groups) Left() ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return g.left(string(info), string(own)), nil
}

// left does what Left does, with what the kernel says of mounts and of the
// groups of this process.
func (g Groups) left(info, own string) []string {
	var found []string
	for group := range g {
		fields := strings.SplitN(group, ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		for _, top := range hierarchies(info, fields[1]) {
			for path := fields[2]; path != "/" && !above(path, own); path = filepath.Dir(path) {
				if _, err := os.Stat(filepath.Join(top, path)); err == nil {
					found = append(found, filepath.Join(top, path))
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// above reports whether a group is that of this process, or above it.
func above(path, own string) bool {
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && strings.HasPrefix(fields[2]+"/", path+"/") {
			return true
		}
	}
	return false
}

// hierarchies returns where the hierarchy with some controllers is mounted.
func hierarchies(info, controllers string) []string {
	var tops []string
	for line := range strings.Lines(info) {
		before, after, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(super) < 3 {
			continue
		}
		unified := controllers == "" && super[0] == "cgroup2"
		if unified || super[0] == "cgroup" && hasAll(super[2], controllers) {
			tops = append(tops, fields[4])
		}
	}
	return tops
}

func hasAll(options, controllers string) bool {
	if controllers == "" {
		return false
	}
	for c := range strings.SplitSeq(controllers, ",") {
		if !slices.Contains(strings.Split(options, ","), c) {
			return false
		}
	}
	return true
}
