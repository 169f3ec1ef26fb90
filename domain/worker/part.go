package worker

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

// pluginPart is a plugin's part in a run.
type pluginPart struct {
	name     string
	part     plugin.TaskPlugin
	finished bool // its Finisher has succeeded
}

// addPlugins makes the part of every plugin in the run. Those made before one
// fails are kept, so that they are closed.
func (r *runner) addPlugins(payloads map[string][]byte, authorize auth.Authorize) error {
	store := r.w.deps.Artifacts.Open(r.claim)
	owners := map[string]string{}
	for _, p := range r.w.deps.Plugins {
		part := &pluginPart{name: p.Name()}
		err := contain(func() (err error) {
			part.part, err = p.NewTaskPlugin(plugin.Task{
				Run:         r.claim.Run(),
				Definition:  r.claim.Task(),
				Payload:     payloads[p.Name()],
				Credentials: r.claim.Credentials,
				Artifacts:   &ownedStore{Store: store, owner: p.Name(), owners: owners},
				Log:         r.taskLog,
				Authorize:   authorize,
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("plugin %s: %w", p.Name(), err)
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
	return nil
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
