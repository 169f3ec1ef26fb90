package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/pkg/spool"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// inMemory is how much of each compressed file is kept in memory while it is
// uploaded.
const inMemory = 256 << 10

// publish publishes items, several at once. It returns the error of the first
// one, in their order, that has any.
func (p *taskPlugin) publish(ctx context.Context, r engine.ResultSet, items []item) error {
	items = slices.DeleteFunc(items, func(it item) bool { return it.flaw == nil && p.settled[it.meta.Name] })
	errs := make([]error, len(items))
	slots := make(chan struct{}, p.config.Parallel)
	var wg sync.WaitGroup
	for i, it := range items {
		slots <- struct{}{}
		if ctx.Err() == nil {
			p.announce(it)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = p.one(ctx, r.FS(), it)
		})
	}
	wg.Wait()
	for i, it := range items {
		errs[i] = p.settle(it, errs[i])
	}
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// one publishes one item, or explains why it cannot.
func (p *taskPlugin) one(ctx context.Context, fsys fs.FS, it item) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case it.flaw != nil:
		return p.explain(ctx, it, it.flaw)
	default:
		return p.upload(ctx, fsys, it)
	}
}

// settle turns how an attempt to publish an item went into what it means.
func (p *taskPlugin) settle(it item, err error) error {
	if errors.Is(err, artifact.ErrReserved) {
		p.task.Log.Warnf("Artifact %s is not published from %s: the worker itself publishes an artifact of that name",
			it.meta.Name, it.shown)
		err = nil
	}
	switch f := it.flaw; {
	case err != nil:
		return err
	case f == nil:
		p.settled[it.meta.Name] = true
		return nil
	case it.optional && f.absence != "":
		return nil
	default:
		return f.kind(f.err, "artifact %q: %s", it.meta.Name, f.message)
	}
}

// announce says in the task log what is about to be published.
func (p *taskPlugin) announce(it item) {
	say := p.task.Log.Errorf
	switch {
	case it.flaw == nil:
		p.task.Log.Infof("Uploading artifact %s from file %s with content encoding %q, mime type %q and expiry %s",
			it.meta.Name, it.shown, it.encoding, it.meta.ContentType, stamp(it.meta.Expires))
		return
	case it.flaw.absence == "":
		return
	case it.optional:
		say = p.task.Log.Infof
	}
	say("Uploading error artifact %s from file %s with message %q, reason %q and expiry %s",
		it.meta.Name, it.shown, it.flaw.message, it.flaw.absence, stamp(it.meta.Expires))
}

func (p *taskPlugin) explain(ctx context.Context, it item, f *flaw) error {
	if f.absence == "" {
		return nil
	}
	if err := p.task.Artifacts.Explain(ctx, it.meta, f.absence, f.message); err != nil {
		return fmt.Errorf("explain absence of artifact %s: %w", it.meta.Name, err)
	}
	return nil
}

// upload uploads a file. One that cannot be read after all is explained instead.
func (p *taskPlugin) upload(ctx context.Context, fsys fs.FS, it item) error {
	err := p.transfer(ctx, fsys, it)
	read, ok := errors.AsType[*readError](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	f := unreadable("file", it.path, read)
	it.flaw = f
	p.announce(it)
	// The queue may have the artifact as an upload by now, and refuse to
	// explain it. The run fails either way.
	if err := p.explain(ctx, it, f); err != nil && !errors.Is(err, artifact.ErrReserved) {
		return fault.Failuref(errors.Join(read, err), "artifact %q: %s", it.meta.Name, f.message)
	}
	if it.optional {
		return nil
	}
	return fault.Failuref(read, "artifact %q: %s", it.meta.Name, f.message)
}

func (p *taskPlugin) transfer(ctx context.Context, fsys fs.FS, it item) (err error) {
	open := opener(fsys, it.path, it.size)
	content := artifact.Content{Size: it.size, Length: it.size, Open: open}
	if it.encoding == "gzip" {
		z, err := spool.New(ctx, p.config.TempDir, inMemory, open)
		if err != nil {
			return fmt.Errorf("compress artifact %s: %w", it.meta.Name, err)
		}
		defer func() { err = errors.Join(err, z.Close()) }()
		content = artifact.Content{Encoding: "gzip", Size: z.Size(), Length: z.Length(), Open: z.Open}
	}
	if err := p.task.Artifacts.Upload(ctx, it.meta, content); err != nil {
		return fmt.Errorf("upload artifact %s: %w", it.meta.Name, err)
	}
	return nil
}
