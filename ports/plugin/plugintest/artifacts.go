package plugintest

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/artifact"
)

// Artifacts is a store in memory. The zero Artifacts is empty.
type Artifacts struct {
	// Err, if not nil, is asked before anything is stored under a name. It may
	// be called concurrently.
	Err func(name string) error

	mu     sync.Mutex
	stored map[string]Artifact
	active int
	most   int
}

// Artifact is what is stored under a name.
type Artifact struct {
	Meta     artifact.Meta
	Kind     string // upload, redirect, link or error
	Encoding string // of an upload
	Text     string // of an upload, decoded
	Target   string // of a link or a redirect
	Absence  artifact.Absence
	Detail   string // of an error
}

// Names returns the names of all artifacts, sorted.
func (a *Artifacts) Names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.stored))
}

// Get returns the artifact of a name, or the zero Artifact.
func (a *Artifacts) Get(name string) Artifact {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stored[name]
}

// MostAtOnce returns how many uploads there were at once at most.
func (a *Artifacts) MostAtOnce() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.most
}

// Upload implements artifact.Store. It reads the content twice, as after an
// attempt that broke off.
func (a *Artifacts) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	a.enter(1)
	defer a.enter(-1)
	if err := a.refuse(ctx, m.Name); err != nil {
		return err
	}
	if _, err := read(c, min(c.Size, 1)); err != nil {
		return err
	}
	content, err := read(c, -1)
	if err != nil {
		return err
	}
	if int64(len(content)) != c.Size {
		return fmt.Errorf("content has %d bytes, not %d", len(content), c.Size)
	}
	text := content
	if c.Encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(content))
		if err != nil {
			return fmt.Errorf("content is not gzip: %w", err)
		}
		if text, err = io.ReadAll(z); err != nil {
			return fmt.Errorf("content is not gzip: %w", err)
		}
	}
	if int64(len(text)) != c.Length {
		return fmt.Errorf("decoded content has %d bytes, not %d", len(text), c.Length)
	}
	a.put(Artifact{Meta: m, Kind: "upload", Encoding: c.Encoding, Text: string(text)})
	return nil
}

// read reads n bytes of content, or all if n is negative.
func read(c artifact.Content, n int64) (content []byte, err error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	if n >= 0 {
		content, err = io.ReadAll(io.LimitReader(r, n))
	} else {
		content, err = io.ReadAll(r)
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return content, err
}

// Redirect implements artifact.Store.
func (a *Artifacts) Redirect(ctx context.Context, m artifact.Meta, url string) error {
	if err := a.refuse(ctx, m.Name); err != nil {
		return err
	}
	a.put(Artifact{Meta: m, Kind: "redirect", Target: url})
	return nil
}

// Link implements artifact.Store.
func (a *Artifacts) Link(ctx context.Context, m artifact.Meta, target string) error {
	if err := a.refuse(ctx, m.Name); err != nil {
		return err
	}
	a.put(Artifact{Meta: m, Kind: "link", Target: target})
	return nil
}

// Explain implements artifact.Store.
func (a *Artifacts) Explain(ctx context.Context, m artifact.Meta, why artifact.Absence, detail string) error {
	if err := a.refuse(ctx, m.Name); err != nil {
		return err
	}
	a.put(Artifact{Meta: m, Kind: "error", Absence: why, Detail: detail})
	return nil
}

func (a *Artifacts) refuse(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.Err != nil {
		return a.Err(name)
	}
	return nil
}

func (a *Artifacts) put(stored Artifact) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stored == nil {
		a.stored = map[string]Artifact{}
	}
	a.stored[stored.Meta.Name] = stored
}

func (a *Artifacts) enter(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active += n
	a.most = max(a.most, a.active)
}
