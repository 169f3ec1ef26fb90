// Package caches gives tasks directories that they find as an earlier task has
// left them, as they ask for in payload.mounts.
package caches

import (
	"context"
	_ "embed" // the schema
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

//go:embed payload-schema.json
var schema []byte

// Config is empty: there is nothing for an operator to choose.
type Config struct{}

// Plugin leases caches to tasks.
type Plugin struct {
	store  cache.Store
	purges cache.Purges

	mu    sync.Mutex
	asked time.Time // when purges were last asked for
}

var _ plugin.Requester = (*Plugin)(nil)

// New returns the plugin.
func New(_ Config, store cache.Store, purges cache.Purges) *Plugin {
	return &Plugin{store: store, purges: purges}
}

// Name implements plugin.Plugin.
func (*Plugin) Name() string { return "caches" }

// PayloadSchema implements plugin.Plugin.
func (*Plugin) PayloadSchema() []byte { return schema }

// Requested implements plugin.Requester. Which exit codes spoil caches is of no
// account to a task without caches.
func (*Plugin) Requested(raw []byte) (string, error) {
	var payload struct {
		Mounts []mount `json:"mounts"`
	}
	if err := json.Unmarshal(raw, &payload); err != nil {
		return "", fmt.Errorf("parse payload of caches: %w", err)
	}
	if len(payload.Mounts) == 0 {
		return "", nil
	}
	return "payload.mounts", nil
}

// mount is an item of payload.mounts.
type mount struct {
	CacheName string `json:"cacheName"`
	Directory string `json:"directory"`
}

// NewTaskPlugin implements plugin.Plugin.
func (p *Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	// A schema takes 3.0 and 3e0 for integers, which Go's int does not.
	var payload struct {
		Mounts       []mount `json:"mounts"`
		OnExitStatus struct {
			PurgeCaches []float64 `json:"purgeCaches"`
		} `json:"onExitStatus"`
	}
	if err := json.Unmarshal(t.Payload, &payload); err != nil {
		return nil, fmt.Errorf("parse payload of caches: %w", err)
	}
	if len(payload.Mounts) == 0 {
		return nil, nil
	}
	names, directories := map[string]bool{}, map[string]bool{}
	for _, m := range payload.Mounts {
		directory := path.Clean(m.Directory)
		if names[m.CacheName] {
			return nil, fault.Malformedf("payload.mounts: cache %s is there twice: a task holds one copy of a cache", m.CacheName)
		}
		if directories[directory] {
			return nil, fault.Malformedf("payload.mounts: there are two caches at %s", directory)
		}
		names[m.CacheName], directories[directory] = true, true
	}
	return &taskPlugin{p: p, t: t, mounts: payload.Mounts, spoil: payload.OnExitStatus.PurgeCaches}, nil
}

// overlap is how far back purges are asked for once more: the clocks of worker
// and service differ.
const overlap = 5 * time.Minute

// purge has the store honor what was asked of the purge-cache service.
func (p *Plugin) purge(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var since time.Time
	if !p.asked.IsZero() {
		since = p.asked.Add(-overlap)
	}
	now := time.Now()
	requests, err := p.purges.PurgeRequests(ctx, since)
	if err != nil {
		return fault.Unavailablef(err, "whether the task's caches are to be purged could not be found out")
	}
	for _, r := range requests {
		p.store.Purge(r.Name, r.Before)
	}
	p.asked = now
	return nil
}

// Settled implements plugin.Settler: what state the caches of tasks are in that
// nobody has seen end is not known.
func (p *Plugin) Settled(ctx context.Context) error {
	if p.store == nil {
		return nil
	}
	if err := p.store.Abandon(ctx); err != nil {
		return fmt.Errorf("discard caches of tasks that were lost: %w", err)
	}
	return nil
}

type taskPlugin struct {
	p      *Plugin
	t      plugin.Task
	mounts []mount
	spoil  []float64 // exit codes

	held    []held
	started bool // the task may have changed the caches
	judged  bool // what is to become of them is decided
	keep    bool // the task has come to its end, and has not spoiled them
}

// held is a cache that the task has.
type held struct {
	mount mount
	lease cache.Lease
}

// Prepare implements plugin.Preparer.
//
// Faults: Malformed, Unavailable.
func (p *taskPlugin) Prepare(ctx context.Context) error {
	var scopes task.Scopes
	for _, m := range p.mounts {
		scopes = append(scopes, string(p.t.Dialect)+":cache:"+m.CacheName)
	}
	if err := p.t.Authorize(ctx, scopes); err != nil {
		return err
	}
	if err := p.p.purge(ctx); err != nil {
		return err
	}
	for _, m := range p.mounts {
		l, err := p.p.store.Acquire(ctx, m.CacheName)
		if err != nil {
			return fmt.Errorf("acquire cache %s: %w", m.CacheName, err)
		}
		p.held = append(p.held, held{m, l})
		p.t.Hold(l.Volume().ID(), m.CacheName)
		if l.Fresh() {
			p.t.Log.Infof("[mounts] No existing writable directory cache '%s' - creating %s", m.CacheName, m.Directory)
		} else {
			p.t.Log.Infof("[mounts] Moving existing writable directory cache %s to %s", m.CacheName, m.Directory)
		}
	}
	return nil
}

// BuildSandbox implements plugin.SandboxBuilder.
//
// Faults: Malformed.
func (p *taskPlugin) BuildSandbox(_ context.Context, b engine.Builder) error {
	attacher, ok := b.(engine.VolumeAttacher)
	if !ok {
		return fault.Malformedf("payload.mounts: the engine of this worker pool has no caches")
	}
	for _, h := range p.held {
		if err := attacher.AttachVolume(h.mount.Directory, h.lease.Volume(), false); err != nil {
			return fmt.Errorf("mount cache %s at %s: %w", h.mount.CacheName, h.mount.Directory, err)
		}
	}
	p.started = true
	return nil
}

// Resumed implements plugin.Resumer. A cache that the store has lost is no reason
// to end the task, which has it still.
func (p *taskPlugin) Resumed(ctx context.Context, _ engine.Sandbox, _ time.Time) error {
	p.started = true
	for _, m := range p.mounts {
		l, err := p.adopt(ctx, m.CacheName)
		if errors.Is(err, fs.ErrNotExist) {
			p.t.Log.Warnf("[mounts] Cache %s is going to be lost: the worker was started again, and knows it no more", m.CacheName)
			continue
		}
		if err != nil {
			return fmt.Errorf("take over cache %s: %w", m.CacheName, err)
		}
		p.held = append(p.held, held{m, l})
	}
	return nil
}

// adopt takes over the lease that an earlier process had for the task.
func (p *taskPlugin) adopt(ctx context.Context, name string) (cache.Lease, error) {
	for volume, cacheName := range p.t.Held {
		if cacheName == name {
			return p.p.store.Adopt(ctx, volume)
		}
	}
	return nil, fs.ErrNotExist
}

// Stopped implements plugin.Stopper. What the worker killed was in the middle of
// something.
func (p *taskPlugin) Stopped(_ context.Context, r engine.ResultSet) error {
	result := r.Result()
	p.keep = !result.Killed && !result.OOM && !slices.Contains(p.spoil, float64(result.ExitCode)) &&
		(!result.Interrupted || result.ExitCode == 0)
	p.judged = true
	for _, h := range p.held {
		if p.keep {
			p.t.Log.Infof("[mounts] Preserving cache: Moving %s to cache %s", h.mount.Directory, h.mount.CacheName)
		} else {
			p.t.Log.Infof("[mounts] Removing cache %s from cache table", h.mount.CacheName)
		}
	}
	return nil
}

// Salvage implements plugin.Salvager. A task that came to its end before its run
// was stopped has left caches as usual, and one that was told to stop, if it says
// by its exit code that all is well.
func (p *taskPlugin) Salvage(ctx context.Context, why run.Reason, r engine.ResultSet) error {
	if why != run.WorkerShutdown || r == nil || !p.started || p.judged {
		return nil
	}
	return p.Stopped(ctx, r)
}

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error {
	var errs []error
	for _, h := range p.held {
		if p.keep || !p.started {
			errs = append(errs, h.lease.Keep())
		} else {
			errs = append(errs, h.lease.Discard())
		}
	}
	return errors.Join(errs...)
}
