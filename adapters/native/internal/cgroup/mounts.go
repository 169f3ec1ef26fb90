package cgroup

import (
	"path/filepath"
	"strings"
)

// mount is a mounted hierarchy of control groups.
type mount struct {
	dir         string
	root        string   // group that is seen at dir, as in a container
	unified     bool     // version 2
	controllers []string // version 1
}

// path returns where a group is seen, or the top where it is not seen.
func (m mount) path(group string) string {
	below, err := filepath.Rel(m.root, group)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return m.dir
	}
	return filepath.Join(m.dir, below)
}

// parseMounts reads the hierarchies from /proc/self/mountinfo.
func parseMounts(mountinfo string) []mount {
	var mounts []mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			mounts = append(mounts, mount{dir: fields[4], root: fields[3], unified: true})
		case "cgroup":
			mounts = append(mounts, mount{dir: fields[4], root: fields[3], controllers: strings.Split(kind[2], ",")})
		}
	}
	return mounts
}

// parseGroups reads the groups of a process, by controller, from
// /proc/self/cgroup. That of version 2 is under the empty name.
func parseGroups(cgroup string) map[string]string {
	groups := map[string]string{}
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			groups[controller] = fields[2]
		}
	}
	return groups
}
