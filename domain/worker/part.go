package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

// pluginPart is a plugin's part in a run.
type pluginPart struct {
	name     string
	part     plugin.TaskPlugin
	finished bool // its Finisher has succeeded
	idle     bool // it is only to be closed
}

// addPlugins makes the part of every plugin in the run. Where one cannot be
// made, the others are nevertheless: the log is still to be stored. The first
// error in declared order is returned.
func (r *runner) addPlugins(c contents, authorize auth.Authorize) error {
	store := r.openArtifacts()
	var held map[string]string
	if r.saved != nil {
		held = maps.Clone(r.saved.Volumes)
	}
	owners := map[string]string{}
	var first error
	for _, p := range r.w.deps.Plugins {
		part := &pluginPart{name: p.Name()}
		err := contain(func() (err error) {
			part.part, err = p.NewTaskPlugin(plugin.Task{
				Run:         r.claim.Run(),
				Definition:  r.claim.Task(),
				Payload:     c.parts[p.Name()],
				Dialect:     c.dialect,
				Credentials: r.claim.Credentials,
				Artifacts:   &ownedStore{Store: store, owner: p.Name(), owners: owners},
				Log:         r.taskLog,
				Authorize:   authorize,
				Fetch:       r.fetch,
				Hold:        func(volumeID, cache string) { r.note(journal.Held{Volume: volumeID, Cache: cache}) },
				Held:        held,
			})
			return err
		})
		if err != nil {
			if first == nil {
				first = fmt.Errorf("plugin %s: %w", p.Name(), err)
			}
			continue
		}
		if part.part == nil {
			continue
		}
		r.plugins = append(r.plugins, part)
		if namer, ok := part.part.(plugin.ArtifactNamer); ok {
			for _, name := range namer.ArtifactNames() {
				owners[name] = p.Name()
			}
		}
	}
	return first
}

// fetch resolves a reference with the rights of the run's task.
func (r *runner) fetch(ctx context.Context, ref fetch.Reference) (fetch.Content, error) {
	if r.w.deps.Fetch == nil {
		return fetch.Content{}, fmt.Errorf("fetch %s: %w", ref, errors.ErrUnsupported)
	}
	return r.w.deps.Fetch.Resolve(ctx, ref, r.claim.Credentials)
}

// addFinishers makes the parts that store the log of a run whose payload is not
// to be used. They see an empty payload, and those that cannot do with one are
// left out.
func (r *runner) addFinishers(authorize auth.Authorize) {
	empty := contents{parts: map[string][]byte{}, dialect: payload.GenericWorker}
	for _, p := range r.w.deps.Plugins {
		empty.parts[p.Name()] = []byte("{}")
	}
	if err := r.addPlugins(empty, authorize); err != nil {
		r.log.DebugContext(r.work, "plugins left out of a run with a malformed payload", slog.Any("error", err))
	}
	for _, p := range r.plugins {
		if _, ok := p.part.(plugin.Finisher); !ok {
			p.idle = true
		}
	}
}

// hook calls one hook of a plugin, in a span of its own.
func (r *runner) hook(ctx context.Context, p *pluginPart, name string, call func(context.Context) error) error {
	ctx, endSpan := r.w.deps.Telemetry.Span(ctx, "plugin."+p.name+"."+name, slog.String("plugin", p.name))
	err := contain(func() error { return call(ctx) })
	if err != nil {
		err = fmt.Errorf("plugin %s: %s: %w", p.name, name, err)
	}
	endSpan(err)
	return err
}

// contain turns a panic of an adapter into an error, which then concerns the
// one run that met it.
func contain(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return call()
}

// ownedStore is the run's artifact store as one plugin sees it: names that
// another plugin has reserved are out of its reach. The owners do not change
// once hooks are called.
type ownedStore struct {
	artifact.Store
	owner  string
	owners map[string]string
}

func (s *ownedStore) check(name string) error {
	if owner, taken := s.owners[name]; taken && owner != s.owner {
		return fmt.Errorf("%w: %s belongs to %s", artifact.ErrReserved, name, owner)
	}
	return nil
}

// Upload implements artifact.Store.
func (s *ownedStore) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if err := s.check(m.Name); err != nil {
		return err
	}
	return s.Store.Upload(ctx, m, c)
}

// Redirect implements artifact.Store.
func (s *ownedStore) Redirect(ctx context.Context, m artifact.Meta, url string) error {
	if err := s.check(m.Name); err != nil {
		return err
	}
	return s.Store.Redirect(ctx, m, url)
}

// Link implements artifact.Store.
func (s *ownedStore) Link(ctx context.Context, m artifact.Meta, target string) error {
	if err := s.check(m.Name); err != nil {
		return err
	}
	return s.Store.Link(ctx, m, target)
}

// Explain implements artifact.Store.
func (s *ownedStore) Explain(ctx context.Context, m artifact.Meta, why artifact.Absence, detail string) error {
	if err := s.check(m.Name); err != nil {
		return err
	}
	return s.Store.Explain(ctx, m, why, detail)
}
