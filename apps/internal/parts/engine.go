package parts

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/taskcluster/taskcluster-worker/adapters/diskcache"
	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/native"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/payload/dockerworker"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
)

// NewEngine makes the engine that the configuration names. It is open for as long
// as the journal is, by which a worker has the state for itself.
func NewEngine(
	ctx context.Context, w section.Worker, c section.Linux, d Deployment, h Hooks, _ journal.Journal, log *slog.Logger,
) (engine.Engine, func(), error) {
	if c.Engine != docker.Name {
		return native.New(ctx, nativeConfig(w, c.Native, h), log)
	}
	cfg, err := dockerConfig(w, c.Docker, d, h)
	if err != nil {
		return nil, nil, err
	}
	cfg.Dir = filepath.Join(c.StateDir(), "docker")
	return docker.New(ctx, cfg, image.New(imageConfig(c.Docker)), log)
}

// IdleEngine is an engine that is asked for its part of the payload alone.
func IdleEngine(c section.Linux) engine.Engine {
	if c.Engine == docker.Name {
		return new(docker.Engine)
	}
	return new(native.Engine)
}

// hasVolumes reports whether the engine can keep caches.
func hasVolumes(c section.Linux) bool {
	_, ok := IdleEngine(c).(engine.Volumes)
	return ok
}

// NewCaches makes the store of caches, on an engine that has room for them.
func NewCaches(ctx context.Context, c section.Linux, h Hooks, e engine.Engine, log *slog.Logger) (cache.Store, func(), error) {
	volumes, ok := e.(engine.Volumes)
	if !ok || !c.Caches.Enabled {
		return nil, func() {}, nil
	}
	return diskcache.New(ctx, diskcache.Config{File: c.Caches.Table, Temporary: h.Temporary}, volumes, log)
}

// NoCaches is the store of a worker that runs nothing.
func NoCaches() cache.Store { return nil }

// NoPurges is the service of a worker that has no caches.
func NoPurges() cache.Purges { return nil }

// NewTranslator returns what understands payloads of docker-worker, where they
// can be executed.
func NewTranslator(c section.Linux) (payload.Translator, error) {
	if c.Engine != docker.Name {
		return nil, nil
	}
	return dockerworker.NewTranslator(jsonschema.Compile)
}

func nativeConfig(w section.Worker, n section.Native, h Hooks) native.Config {
	return native.Config{
		Dir:      n.Dir,
		Capacity: w.Capacity,
		Limits: native.Limits{
			MemoryBytes:       int64(n.Limits.Memory),
			CPUs:              n.Limits.CPU,
			PIDs:              n.Limits.PIDs,
			SharedMemoryBytes: int64(n.Limits.SharedMemory),
		},
		Grace:           n.Grace,
		NoNewPrivileges: n.NoNewPrivileges,
		OrphanTimeout:   h.orphanTimeout(),
	}
}

func dockerConfig(w section.Worker, c section.Docker, d Deployment, h Hooks) (docker.Config, error) {
	addresses, err := netip.ParsePrefix(c.Addresses)
	if err != nil {
		return docker.Config{}, fmt.Errorf("docker.addresses: %w", err)
	}
	limits, allow := c.Limits, c.Allow
	return docker.Config{
		Host:     c.Host,
		Instance: cmp.Or(c.Instance, d.Worker.Pool+" "+d.Worker.ID),
		Pool:     d.Worker.Pool,
		Capacity: w.Capacity,
		Limits: docker.Limits{
			MemoryBytes:       int64(limits.Memory),
			CPUs:              limits.CPU,
			PIDs:              int64(limits.PIDs),
			SharedMemoryBytes: int64(limits.SharedMemory),
			DiskBytes:         int64(limits.Disk),
			OpenFiles:         int64(limits.OpenFiles),
		},
		Grace:         c.Grace,
		NewPrivileges: c.NewPrivileges,
		Egress:        docker.Egress(c.Egress),
		Addresses:     addresses,
		Runtime:       c.Runtime,
		UserNamespace: c.UserNamespace,
		Devices:       docker.Devices(c.Devices),
		Allow: docker.Allow{
			Privileged: allow.Privileged, DisableSeccomp: allow.DisableSeccomp, Ptrace: allow.Ptrace, KVM: allow.KVM,
			LoopbackVideo: allow.LoopbackVideo, LoopbackAudio: allow.LoopbackAudio, SharedMemory: allow.HostSharedMemory,
		},
		OrphanTimeout: h.orphanTimeout(),
	}, nil
}

func imageConfig(c section.Docker) image.Config {
	cfg := image.Config{Pull: image.Pull(c.Pull), Preload: c.Preload, MinFree: int64(c.MinFree)}
	for _, r := range c.Registries {
		cfg.Registries = append(cfg.Registries, image.Registry(r))
	}
	return cfg
}
