package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/taskcluster/taskcluster-worker/adapters/diskcache"
	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/adapters/native"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// newEngine makes the engine that the configuration names.
func newEngine(ctx context.Context, c config, log *slog.Logger) (engine.Engine, func(), error) {
	if c.Engine != docker.Name {
		return native.New(ctx, nativeSettings(c), log)
	}
	settings, err := dockerSettings(c)
	if err != nil {
		return nil, nil, err
	}
	return docker.New(ctx, settings, image.New(imageSettings(c)), log)
}

// idleEngine is an engine that is asked for its part of the payload alone.
func idleEngine(c config) engine.Engine {
	if c.Engine == docker.Name {
		return new(docker.Engine)
	}
	return new(native.Engine)
}

// hasVolumes reports whether the engine can keep caches.
func hasVolumes(c config) bool {
	_, ok := idleEngine(c).(engine.Volumes)
	return ok
}

// newCaches makes the store of caches, on an engine that has room for them.
func newCaches(ctx context.Context, c config, h hooks, e engine.Engine, log *slog.Logger) (cache.Store, func(), error) {
	volumes, ok := e.(engine.Volumes)
	if !ok || !c.Caches.Enabled {
		return nil, func() {}, nil
	}
	s, shut, err := diskcache.New(ctx, diskcache.Config{File: c.Caches.Table, Temporary: h.Temporary}, volumes, log)
	if err != nil {
		return nil, nil, err
	}
	// Sandboxes end with their worker, and so do leases.
	if err := s.Abandon(ctx); err != nil {
		shut()
		return nil, nil, fmt.Errorf("discard caches of killed tasks: %w", err)
	}
	return s, shut, nil
}

// noCaches is the store of a worker that runs nothing.
func noCaches() cache.Store { return nil }

func noPurges() cache.Purges { return nil }

func dockerSettings(c config) (docker.Config, error) {
	addresses, err := netip.ParsePrefix(c.Docker.Addresses)
	if err != nil {
		return docker.Config{}, fmt.Errorf("docker.addresses: %w", err)
	}
	instance := c.Docker.Instance
	if instance == "" {
		instance = c.Worker.Pool + " " + c.Worker.ID
	}
	limits, allow := c.Docker.Limits, c.Docker.Allow
	return docker.Config{
		Host:     c.Docker.Host,
		Instance: instance,
		Pool:     c.Worker.Pool,
		Capacity: c.Worker.Capacity,
		Limits: docker.Limits{
			MemoryBytes:       int64(limits.Memory),
			CPUs:              limits.CPU,
			PIDs:              int64(limits.PIDs),
			SharedMemoryBytes: int64(limits.SharedMemory),
			DiskBytes:         int64(limits.Disk),
			OpenFiles:         int64(limits.OpenFiles),
		},
		Grace:         c.Docker.Grace,
		NewPrivileges: c.Docker.NewPrivileges,
		Egress:        docker.Egress(c.Docker.Egress),
		Addresses:     addresses,
		Runtime:       c.Docker.Runtime,
		UserNamespace: c.Docker.UserNamespace,
		Allow: docker.Allow{
			Privileged: allow.Privileged, DisableSeccomp: allow.DisableSeccomp, Ptrace: allow.Ptrace, KVM: allow.KVM,
			LoopbackVideo: allow.LoopbackVideo, LoopbackAudio: allow.LoopbackAudio, SharedMemory: allow.HostSharedMemory,
		},
	}, nil
}

func imageSettings(c config) image.Config {
	settings := image.Config{Pull: image.Pull(c.Docker.Pull), Preload: c.Docker.Preload, MinFree: int64(c.Docker.MinFree)}
	for _, r := range c.Docker.Registries {
		settings.Registries = append(settings.Registries, image.Registry(r))
	}
	return settings
}
