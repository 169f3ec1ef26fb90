package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// command returns the command that starts the worker of a scenario.
func (b *bench) command(ctx context.Context, s scenario, pool string) (*exec.Cmd, error) {
	root := b.server.Credentials()
	file := filepath.Join(b.dir, "worker.yml")
	config := fmt.Sprintf("rootURL: %s\ncredentials: {clientID: %s, accessToken: %s}\nworker: {pool: %s, group: g, id: w, capacity: %d}\nnative: {dir: %s}\n",
		b.server.RootURL(), root.ClientID, root.AccessToken, pool, s.capacity, filepath.Join(b.dir, "native"))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, ".bin/dc-linux-worker", "start", "--config", file), nil //nolint:gosec // our own file
}

// memory is the greatest memory seen of a worker, and of the processes it
// keeps for tasks.
type memory struct {
	pid      int
	rss, pss int64
	exited   bool
}

func (m *memory) sample() {
	m.rss = max(m.rss, field(fmt.Sprintf("/proc/%d/status", m.pid), "VmRSS:"))
	var pss int64
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.pid)) // the pattern is valid
	for _, list := range lists {
		pids, err := os.ReadFile(list) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			pss += field("/proc/"+pid+"/smaps_rollup", "Pss:")
		}
	}
	m.pss = max(m.pss, pss)
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
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
