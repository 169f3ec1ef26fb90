package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// openGroups returns the tree of control groups that containers are put into,
// nil where the daemon does not let the worker say into which: it leaves them to
// systemd, say.
func openGroups(info systemtypes.Info, instance string) *cgroup.Tree {
	if info.CgroupDriver != "cgroupfs" || slices.Contains(info.SecurityOptions, "name=rootless") {
		return nil
	}
	sum := sha256.Sum256([]byte(instance))
	tree, ok := cgroup.Open("taskcluster-worker-" + hex.EncodeToString(sum[:8]))
	if !ok {
		return nil
	}
	tree.Sweep()
	return tree
}

// meter measures what a container uses: exactly by a control group around that
// of the container, and else by samples that the daemon takes every second.
type meter struct {
	e      *Engine
	parent string // group; empty if there is none

	mu      sync.Mutex
	sampled cgroup.Usage
	stop    context.CancelFunc // nil if no samples are taken
}

// newMeter returns a meter for the container of a run.
func (e *Engine) newMeter(run task.RunID) *meter {
	if e.groups == nil {
		return &meter{e: e}
	}
	return e.meterOf(e.groups.Parent(strings.ReplaceAll(run.String(), "/", "-") + "-" + rand.Text()))
}

// meterOf returns a meter for a container whose parent group is known.
func (e *Engine) meterOf(parent string) *meter { return &meter{e: e, parent: parent} }

// follow begins to measure a container that has started.
func (m *meter) follow(id string) {
	if m.parent != "" {
		return
	}
	ctx, stop := context.WithCancel(m.e.ctx)
	m.mu.Lock()
	m.stop = stop
	m.mu.Unlock()
	m.e.background.Go(func() {
		defer stop()
		stats, err := m.e.daemon.ContainerStats(ctx, id, client.ContainerStatsOptions{Stream: true})
		if err != nil {
			m.e.log.DebugContext(ctx, "measure container", slog.String("container", id), slog.Any("error", err))
			return
		}
		defer func() { _ = stats.Body.Close() }()
		for d := json.NewDecoder(stats.Body); ; {
			var s container.StatsResponse
			if err := d.Decode(&s); err != nil {
				return // it has ended, or what was seen so far has to do
			}
			m.note(s)
		}
	})
}

// note notes a sample. The daemon has nothing but zeros to say of a container
// that has ended.
func (m *meter) note(s container.StatsResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cpu, memory := s.CPUStats.CPUUsage, s.MemoryStats
	m.sampled.User = max(m.sampled.User, time.Duration(cpu.UsageInUsermode))                      //nolint:gosec // centuries
	m.sampled.Kernel = max(m.sampled.Kernel, time.Duration(cpu.UsageInKernelmode))                //nolint:gosec // centuries
	m.sampled.PeakMemory = max(m.sampled.PeakMemory, int64(memory.Usage), int64(memory.MaxUsage)) //nolint:gosec // no memory is that large
}

// read returns what the container has used so far.
func (m *meter) read() cgroup.Usage {
	if m.parent != "" && m.e.groups != nil {
		return m.e.groups.Read(m.parent)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sampled
}

// readNow is as read, for a container that is still running: it does not rely on
// a sample that may be a second old.
func (m *meter) readNow(ctx context.Context, id string) cgroup.Usage {
	if m.parent == "" {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if stats, err := m.e.daemon.ContainerStats(ctx, id, client.ContainerStatsOptions{}); err == nil {
			var s container.StatsResponse
			if json.NewDecoder(stats.Body).Decode(&s) == nil {
				m.note(s)
			}
			_ = stats.Body.Close() // all of it was read
		}
	}
	return m.read()
}

// close ends the measuring, of a container that is gone.
func (m *meter) close() {
	m.mu.Lock()
	stop := m.stop
	m.mu.Unlock()
	if stop != nil {
		stop()
	}
	if m.parent == "" || m.e.groups == nil {
		return
	}
	if err := m.e.groups.Remove(m.parent); err != nil {
		m.e.log.Warn("remove control group", slog.String("group", m.parent), slog.Any("error", err))
	}
}

// charge adds to a result what was used since before, of which the peak of
// memory cannot be told from the peak of all.
func charge(r *engine.Result, now, before cgroup.Usage) {
	r.User, r.Kernel, r.PeakMemory = now.User-before.User, now.Kernel-before.Kernel, now.PeakMemory
}
