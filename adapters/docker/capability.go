package docker

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/moby/moby/api/types/container"

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
	pooled  bool // there is a scope for each pool, too
	apply   func(*container.HostConfig) error
}

func (e *Engine) wishes(c capabilities) []wish {
	const capability = "docker-worker:capability:"
	device := capability + "device:"
	allow := e.config.Allow
	return []wish{
		{"privileged", c.Privileged, allow.Privileged, capability + "privileged", true, func(h *container.HostConfig) error {
			h.Privileged = true
			return nil
		}},
		{"disableSeccomp", c.DisableSeccomp, allow.DisableSeccomp, capability + "disableSeccomp", false, func(h *container.HostConfig) error {
			h.SecurityOpt = append(h.SecurityOpt, "seccomp=unconfined")
			return nil
		}},
		{"ptrace", c.Ptrace, allow.Ptrace, "docker-worker:feature:allowPtrace", false, func(h *container.HostConfig) error {
			h.CapAdd = append(h.CapAdd, "SYS_PTRACE")
			return nil
		}},
		{"devices.kvm", c.Devices.KVM, allow.KVM, device + "kvm", true, mapDevices("/dev/kvm")},
		{"devices.loopbackVideo", c.Devices.LoopbackVideo, allow.LoopbackVideo, device + "loopbackVideo", true, mapDevices("/dev/video*")},
		{"devices.loopbackAudio", c.Devices.LoopbackAudio, allow.LoopbackAudio, device + "loopbackAudio", true, mapDevices("/dev/snd/*")},
		{"devices.hostSharedMemory", c.Devices.SharedMemory, allow.SharedMemory, device + "hostSharedMemory", true, func(h *container.HostConfig) error {
			h.IpcMode = "host"
			return nil
		}},
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

// mapDevices gives a container the devices whose paths match a pattern.
func mapDevices(pattern string) func(*container.HostConfig) error {
	return func(h *container.HostConfig) error {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("find devices %s: %w", pattern, err)
		}
		if len(paths) == 0 {
			return fault.Unavailablef(nil, "this worker has no device %s", pattern)
		}
		for _, p := range paths {
			h.Devices = append(h.Devices, container.DeviceMapping{PathOnHost: p, PathInContainer: p, CgroupPermissions: "rwm"})
		}
		return nil
	}
}
