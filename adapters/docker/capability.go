package docker

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

// wish is something that a task asks for beyond a common container.
type wish struct {
	name    string // in the payload
	wanted  bool
	allowed bool // by the operator
	scope   string
	pooled  bool   // there is a scope for each worker pool, too
	path    string // that the host must have for it
	apply   func(*container.HostConfig, []device)

	// Of devices that one task has at a time: where they come from, how many
	// it wants, and those that it has.
	pool    *pool
	count   int
	devices []device
}

func (e *Engine) wishes(c capabilities) []wish {
	const capability = "docker-worker:capability:"
	const prefix = capability + "device:"
	allow, d := e.config.Allow, c.Devices
	return []wish{
		{name: "privileged", wanted: c.Privileged, allowed: allow.Privileged, scope: capability + "privileged", pooled: true, apply: func(h *container.HostConfig, _ []device) {
			h.Privileged = true
		}},
		{name: "disableSeccomp", wanted: c.DisableSeccomp, allowed: allow.DisableSeccomp, scope: capability + "disableSeccomp", apply: func(h *container.HostConfig, _ []device) {
			h.SecurityOpt = append(h.SecurityOpt, "seccomp=unconfined")
		}},
		{name: "ptrace", wanted: c.Ptrace, allowed: allow.Ptrace, scope: "docker-worker:feature:allowPtrace", apply: func(h *container.HostConfig, _ []device) {
			h.CapAdd = append(h.CapAdd, "SYS_PTRACE")
		}},
		{name: "devices.kvm", wanted: d.KVM, allowed: allow.KVM, scope: prefix + "kvm", pooled: true, path: "/dev/kvm", apply: func(h *container.HostConfig, _ []device) {
			mapDevices(h, []device{{paths: []string{"/dev/kvm"}}})
		}},
		{name: "devices.hostSharedMemory", wanted: d.SharedMemory, allowed: allow.SharedMemory, scope: prefix + "hostSharedMemory", pooled: true, apply: func(h *container.HostConfig, _ []device) {
			h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: "/dev/shm", Target: "/dev/shm"})
		}},
		{name: "devices.loopbackVideo", wanted: d.LoopbackVideo, allowed: allow.LoopbackVideo, scope: prefix + "loopbackVideo", pooled: true, apply: mapDevices, pool: e.pools.video, count: 1},
		{name: "devices.loopbackAudio", wanted: d.LoopbackAudio, allowed: allow.LoopbackAudio, scope: prefix + "loopbackAudio", pooled: true, apply: mapDevices, pool: e.pools.audio, count: 1},
		{name: "devices.gpus", wanted: d.GPUs > 0, allowed: len(e.config.Devices.GPUs) > 0, scope: prefix + "gpus", pooled: true, apply: requestGPUs, pool: e.pools.gpus, count: d.GPUs},
	}
}

// grant returns what gives a container all that its task asks for.
//
// Faults: Malformed, if the operator does not allow it, or the task's scopes do
// not; Unavailable.
func (e *Engine) grant(ctx context.Context, c capabilities, authorize auth.Authorize) ([]wish, error) {
	var granted []wish
	for _, w := range e.wishes(c) {
		if !w.wanted {
			continue
		}
		if !w.allowed {
			return nil, fault.Malformedf("payload.capabilities.%s is not available on worker pool %s", w.name, e.config.Pool)
		}
		sets := []task.Scopes{{w.scope}}
		if w.pooled {
			sets = append(sets, task.Scopes{w.scope + ":" + e.config.Pool})
		}
		if err := authorize(ctx, sets...); err != nil {
			return nil, err
		}
		granted = append(granted, w)
	}
	return granted, nil
}

// videoVariable tells a task which of the host's devices is its virtual camera.
const videoVariable = "TASKCLUSTER_VIDEO_DEVICE"
