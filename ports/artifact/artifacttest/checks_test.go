package artifacttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	boom := errors.New("boom")
	fails := broken{upload: func(context.Context, artifact.Store, artifact.Meta, artifact.Content) error { return boom }}
	forgets := broken{upload: func(context.Context, artifact.Store, artifact.Meta, artifact.Content) error { return nil }}
	changed := func(change func(*Artifact)) broken { return broken{seen: change} }
	swallows := broken{upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
		_ = s.Upload(ctx, m, c)
		return nil
	}}
	otherRedirect := broken{redirect: func(ctx context.Context, s artifact.Store, m artifact.Meta, _ string) error {
		return s.Redirect(ctx, m, "https://example.com/elsewhere")
	}}
	keepsRedirect := broken{redirect: onlyFirst()}

	defects := map[string][]broken{
		"uploads are visible": {
			fails, forgets,
			changed(func(a *Artifact) { a.ContentType = "text/plain" }),
			changed(func(a *Artifact) { a.Expires = a.Expires.Add(-time.Second) }),
			changed(func(a *Artifact) { a.Body = a.Body[1:] }),
			changed(func(a *Artifact) { a.Op = Redirect }),
		},
		"empty content is visible":   {fails, forgets, changed(func(a *Artifact) { a.Body = []byte{0} })},
		"encoded content is visible": {fails, changed(func(a *Artifact) { a.Encoding = "" }), changed(func(a *Artifact) { a.Encoding = "br" })},
		"long content is visible":    {fails, changed(func(a *Artifact) { a.Body = a.Body[:1<<20] })},
		"names are taken as they are": {{upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
			if m.Name == "x/../y" {
				m.Name = "y"
			}
			return s.Upload(ctx, m, c)
		}}},
		"a broken transfer is repeated from the start": {
			{upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
				attempts, open := 0, c.Open
				c.Open = func() (io.ReadCloser, error) {
					if attempts++; attempts > 1 {
						return nil, boom
					}
					return open()
				}
				return s.Upload(ctx, m, c)
			}},
			{upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
				open := c.Open
				c.Open = func() (io.ReadCloser, error) {
					r, err := open()
					return io.NopCloser(r), err
				}
				return s.Upload(ctx, m, c)
			}},
			{unbreakable: true},
		},
		"content that cannot be opened is no artifact": {forgets, fails, substitutes(boom)},
		"content that cannot be read is no artifact":   {forgets, fails, substitutes(errContent)},
		"content that is too short is no artifact":     {forgets, swallows, substitutes(boom)},
		"a repeated upload replaces or is refused": {
			{upload: onlyFirstUpload()},
			fails,
			{upload: twiceUpload(func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
				return errors.Join(s.Upload(ctx, m, c), fault.Malformedf("refused but replaced"))
			})},
		},
		"redirects are visible":        {otherRedirect, changed(func(a *Artifact) { a.ContentType = "" })},
		"a redirect may be redirected": {keepsRedirect},
		"a redirect may become a link": {{link: func(context.Context, artifact.Store, artifact.Meta, string) error { return nil }}},
		"links are visible": {
			{link: func(ctx context.Context, s artifact.Store, m artifact.Meta, _ string) error {
				return s.Link(ctx, m, "public/other")
			}},
			{link: func(context.Context, artifact.Store, artifact.Meta, string) error { return boom }},
		},
		"an upload does not become a redirect": {
			{redirect: func(context.Context, artifact.Store, artifact.Meta, string) error { return nil }},
			{redirect: func(context.Context, artifact.Store, artifact.Meta, string) error { return boom }},
		},
		"explanations are visible": {
			changed(func(a *Artifact) { a.Detail = "" }),
			changed(func(a *Artifact) { a.Absence = artifact.InvalidResource }),
			{explain: func(context.Context, artifact.Store, artifact.Meta, artifact.Absence, string) error { return boom }},
		},
		"an expiry after the task's is malformed": {fails, {upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
			m.Expires = time.Now().Add(time.Minute)
			return s.Upload(ctx, m, c)
		}}},
		"another content type is malformed": {fails, swallows},
		"an exception takes artifacts":      {fails, {unqueued: true, upload: fails.upload}},
		"a completed run takes no artifacts": {
			swallows, fails, {unqueued: true},
		},
		"runs have their own artifacts": {{oneStore: true}},
		"may be used concurrently":      {forgets, fails, otherRedirect},
		"ends when canceled": {swallows, {upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
			return errors.Join(boom, s.Upload(context.WithoutCancel(ctx), m, c))
		}}},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if len(defects[c.name]) == 0 {
				t.Fatal("no defect that this check should catch")
			}
			for i, b := range defects[c.name] {
				q := new(queuetest.Memory)
				b.Harness = NewHarness(&Memory{Queue: q})
				b.m = &Memory{Queue: q}
				if b.unqueued {
					b.m.Queue = nil
				}
				if err := c.run(t.Context(), t, &b); err == nil {
					t.Errorf("the check passed stores with defect %d", i)
				}
			}
		})
		delete(defects, c.name)
	}
	for name := range defects {
		t.Errorf("there is no check %q", name)
	}
}

type uploadFunc func(context.Context, artifact.Store, artifact.Meta, artifact.Content) error

// broken opens stores, and is their harness, with the defects that are set.
type broken struct {
	Harness

	m        *Memory
	upload   uploadFunc
	redirect func(context.Context, artifact.Store, artifact.Meta, string) error
	link     func(context.Context, artifact.Store, artifact.Meta, string) error
	explain  func(context.Context, artifact.Store, artifact.Meta, artifact.Absence, string) error
	seen     func(*Artifact)

	unbreakable bool // gives up when a transfer breaks
	unqueued    bool // does not ask the queue
	oneStore    bool // for all runs

	first queue.Claim
}

func (b *broken) Opener(testing.TB) artifact.Opener { return b }

func (b *broken) Break(_ testing.TB, n int) {
	if b.unbreakable {
		n = 0
	}
	b.m.Break(n)
}

func (b *broken) Open(c queue.Claim) artifact.Store {
	if b.first == nil {
		b.first = c
	}
	if b.oneStore {
		c = b.first
	}
	return &brokenStore{b.m.Open(c), b}
}

func (b *broken) Artifact(tb testing.TB, id task.RunID, name string) (Artifact, bool) {
	tb.Helper()
	if b.oneStore {
		id = b.first.Run()
	}
	a, ok := NewHarness(b.m).Artifact(tb, id, name)
	if ok && b.seen != nil {
		b.seen(&a)
	}
	return a, ok
}

type brokenStore struct {
	artifact.Store
	b *broken
}

func (s *brokenStore) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if s.b.upload != nil {
		return s.b.upload(ctx, s.Store, m, c)
	}
	return s.Store.Upload(ctx, m, c)
}

func (s *brokenStore) Redirect(ctx context.Context, m artifact.Meta, url string) error {
	if s.b.redirect != nil {
		return s.b.redirect(ctx, s.Store, m, url)
	}
	return s.Store.Redirect(ctx, m, url)
}

func (s *brokenStore) Link(ctx context.Context, m artifact.Meta, target string) error {
	if s.b.link != nil {
		return s.b.link(ctx, s.Store, m, target)
	}
	return s.Store.Link(ctx, m, target)
}

func (s *brokenStore) Explain(ctx context.Context, m artifact.Meta, why artifact.Absence, detail string) error {
	if s.b.explain != nil {
		return s.b.explain(ctx, s.Store, m, why, detail)
	}
	return s.Store.Explain(ctx, m, why, detail)
}

// substitutes uploads what the check's content would have been, and returns err.
func substitutes(err error) broken {
	return broken{upload: func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
		content := noise(1 << 20)
		if c.Size < 10 {
			content = []byte("hello")
		}
		c.Size = int64(len(content))
		c.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
		return errors.Join(s.Upload(ctx, m, c), err)
	}}
}

// onlyFirst ignores all redirects but the first.
func onlyFirst() func(context.Context, artifact.Store, artifact.Meta, string) error {
	calls := 0
	return func(ctx context.Context, s artifact.Store, m artifact.Meta, url string) error {
		if calls++; calls > 1 {
			return nil
		}
		return s.Redirect(ctx, m, url)
	}
}

// onlyFirstUpload ignores all uploads but the first.
func onlyFirstUpload() uploadFunc {
	return twiceUpload(func(context.Context, artifact.Store, artifact.Meta, artifact.Content) error { return nil })
}

// twiceUpload has later do all uploads but the first.
func twiceUpload(later uploadFunc) uploadFunc {
	calls := 0
	return func(ctx context.Context, s artifact.Store, m artifact.Meta, c artifact.Content) error {
		if calls++; calls > 1 {
			return later(ctx, s, m, c)
		}
		return s.Upload(ctx, m, c)
	}
}
