package docker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"

	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// openGroups returns the tree of control groups that containers are put into,
// with those of orphans, or nil where the daemon does not let the worker say into
// which: it leaves them to systemd, say.
func openGroups(info systemtypes.Info, podman bool, instance string, orphans []string) *cgroup.Tree {
	if podman || info.CgroupDriver != "cgroupfs" || slices.Contains(info.SecurityOptions, "name=rootless") {
		return nil
	}
	sum := sha256.Sum256([]byte(instance))
	tree, ok := cgroup.Open("taskcluster-worker-" + hex.EncodeToString(sum[:8]))
	if !ok {
		return nil
	}
	tree.Sweep(orphans...)
	return tree
}

// meter measures what a container uses: by a control group around that of the
// container, which stays, or else by what the first process knows of the commands.
type meter struct {
	e      *Engine
	parent string // group; empty if there is none
}

// newMeter returns a meter for the container of a run.
func (e *Engine) newMeter(run task.RunID) meter {
	if e.groups == nil {
		return meter{e: e}
	}
	return meter{e: e, parent: e.groups.Parent(strings.ReplaceAll(run.String(), "/", "-") + "-" + rand.Text())}
}

// read returns what the container has used so far, whose first process has noted
// the total of its commands.
func (m meter) read(total transcript.Executed) cgroup.Usage {
	u := cgroup.Usage{User: total.User, Kernel: total.Kernel, PeakMemory: total.MaxRSS}
	if m.parent == "" || m.e.groups == nil {
		return u
	}
	if all := m.e.groups.Read(m.parent); all != (cgroup.Usage{}) {
		return all
	}
	return u
}

// close ends the measuring, of a container that is gone.
func (m meter) close() {
	if m.parent == "" || m.e.groups == nil {
		return
	}
	if err := m.e.groups.Remove(m.parent); err != nil {
		m.e.log.Warn("remove control group", slog.String("group", m.parent), slog.Any("error", err))
	}
}
