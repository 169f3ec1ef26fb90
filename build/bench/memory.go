package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

// memory is the greatest memory seen of a worker and of all of its
// supervisors, in bytes.
type memory struct {
	rss, pss int64
}

// sample looks at a worker as it is now.
func (m *memory) sample(pid int) {
	m.rss = max(m.rss, field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:"))
	m.pss = max(m.pss, supervisorsPSS(strconv.Itoa(pid)))
}

// supervisorsPSS sums up the supervisors among the children of a process. Their
// pages are shared, which is why their resident sizes would not add up.
func supervisorsPSS(pid string) (sum int64) {
	lists, _ := filepath.Glob("/proc/" + pid + "/task/*/children") // The pattern is valid.
	for _, list := range lists {
		children, err := os.ReadFile(list) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // The thread has ended.
		}
		for child := range strings.FieldsSeq(string(children)) {
			line, err := os.ReadFile("/proc/" + child + "/cmdline") //nolint:gosec // a file of the kernel
			if err != nil {
				continue // The process has ended.
			}
			if name, _, _ := strings.Cut(string(line), "\x00"); name == supervisor.Name {
				sum += field("/proc/"+child+"/smaps_rollup", "Pss:")
			}
		}
	}
	return sum
}

// field returns a number of kilobytes in a file of /proc, in bytes, or 0 if the
// process has ended.
func field(file, name string) int64 {
	content, err := os.ReadFile(file) //nolint:gosec // a file of the kernel
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			kilobytes, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kilobytes << 10
		}
	}
	return 0
}
