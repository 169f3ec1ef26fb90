package artifacttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

func uploadsAreVisible(ctx context.Context, b *bench) error {
	content := []byte("hello\n")
	if err := b.upload(ctx, "public/a.txt", content); err != nil {
		return err
	}
	return b.wantUpload("public/a.txt", content)
}

func emptyContentIsVisible(ctx context.Context, b *bench) error {
	if err := b.upload(ctx, "public/empty", nil); err != nil {
		return err
	}
	return b.wantUpload("public/empty", nil)
}

func encodedContentIsVisible(ctx context.Context, b *bench) error {
	for name, content := range map[string][]byte{
		"public/short": []byte(strings.Repeat("a line of the log\n", 10)),
		"public/long":  []byte(strings.Repeat("a line of the log\n", 10_000)),
	} {
		if err := b.store.Upload(ctx, b.meta(name), compressed(content)); err != nil {
			return err
		}
		if err := b.wantUpload(name, content); err != nil {
			return err
		}
	}
	return nil
}

func longContentIsVisible(ctx context.Context, b *bench) error {
	content := noise(3 << 20)
	if err := b.upload(ctx, "public/long", content); err != nil {
		return err
	}
	return b.wantUpload("public/long", content)
}

// noise returns n bytes, the same ones each time.
func noise(n int) []byte {
	content := make([]byte, n)
	// Reading from a ChaCha8 does not fail.
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	return content
}

func namesAreTakenAsTheyAre(ctx context.Context, b *bench) error {
	names := []string{"a", "public/dir/with/parts.tar.gz", "with space", "per%20cent", "a+b?c#d&e=f", "..", "x/../y"}
	for _, name := range names {
		if err := b.upload(ctx, name, []byte(name)); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := b.wantUpload(name, []byte(name)); err != nil {
			return err
		}
	}
	return nil
}

func brokenTransferIsRepeated(ctx context.Context, b *bench) error {
	content := noise(1 << 20)
	c := plain(content)
	var opened, open atomic.Int32
	var overlap atomic.Bool
	c.Open = func() (io.ReadCloser, error) {
		opened.Add(1)
		overlap.Store(overlap.Load() || open.Add(1) > 1)
		return &tracked{Reader: bytes.NewReader(content), open: &open}, nil
	}
	b.h.Break(b.tb, 2)
	if err := b.store.Upload(ctx, b.meta("public/a"), c); err != nil {
		return err
	}
	if n := opened.Load(); n < 3 {
		return fmt.Errorf("opened the content %d times for 2 broken transfers and one whole", n)
	}
	if n := open.Load(); n != 0 || overlap.Load() {
		return fmt.Errorf("%d readers of the content are open at the end; several at once: %t", n, overlap.Load())
	}
	return b.wantUpload("public/a", content)
}

// tracked counts how many of its kind are open.
type tracked struct {
	io.Reader
	open *atomic.Int32
	once sync.Once
}

func (t *tracked) Close() error {
	t.once.Do(func() { t.open.Add(-1) })
	return nil
}

var errContent = errors.New("cannot be read")

func contentThatCannotBeOpened(ctx context.Context, b *bench) error {
	content := []byte("hello")
	c := plain(content)
	c.Open = func() (io.ReadCloser, error) { return nil, errContent }
	if err := b.store.Upload(ctx, b.meta("public/a"), c); !errors.Is(err, errContent) {
		return fmt.Errorf("Upload returned %q, want the error of Open", fmt.Sprint(err))
	}
	return b.wantNone("public/a", content)
}

func contentThatCannotBeRead(ctx context.Context, b *bench) error {
	content := noise(1 << 20)
	c := plain(content)
	c.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:1<<19]), failing{})), nil
	}
	if err := b.store.Upload(ctx, b.meta("public/a"), c); !errors.Is(err, errContent) {
		return fmt.Errorf("Upload returned %q, want the error of reading", fmt.Sprint(err))
	}
	return b.wantNone("public/a", content)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errContent }

func contentThatIsTooShort(ctx context.Context, b *bench) error {
	c := plain([]byte("hello"))
	c.Size, c.Length = 6, 6
	if err := b.store.Upload(ctx, b.meta("public/a"), c); err == nil {
		return errors.New("Upload of 5 bytes that were announced as 6 returned nil")
	}
	return b.wantNone("public/a", []byte("hello"))
}

func repeatedUpload(ctx context.Context, b *bench) error {
	first, second := []byte("first"), []byte("second")
	if err := b.upload(ctx, "public/a", first); err != nil {
		return err
	}
	err := b.upload(ctx, "public/a", second)
	if err == nil {
		return b.wantUpload("public/a", second)
	}
	if err := wantMalformed(err); err != nil {
		return err
	}
	return b.wantUpload("public/a", first)
}

func redirectsAreVisible(ctx context.Context, b *bench) error {
	const url = "https://example.com/live?a=b"
	if err := b.store.Redirect(ctx, b.meta("public/live.log"), url); err != nil {
		return err
	}
	return b.wantRedirect("public/live.log", url)
}

func (b *bench) wantRedirect(name, url string) error {
	m := b.meta(name)
	return b.want(name, Artifact{Op: Redirect, ContentType: m.ContentType, Expires: m.Expires, URL: url})
}

func redirectMayBeRedirected(ctx context.Context, b *bench) error {
	for _, url := range []string{"https://example.com/1", "https://example.com/2"} {
		if err := b.store.Redirect(ctx, b.meta("public/live.log"), url); err != nil {
			return err
		}
		if err := b.wantRedirect("public/live.log", url); err != nil {
			return err
		}
	}
	return nil
}

func redirectMayBecomeLink(ctx context.Context, b *bench) error {
	if err := b.store.Redirect(ctx, b.meta("public/live.log"), "https://example.com/1"); err != nil {
		return err
	}
	return link(ctx, b)
}

func linksAreVisible(ctx context.Context, b *bench) error { return link(ctx, b) }

// link links public/live.log to another artifact.
func link(ctx context.Context, b *bench) error {
	if err := b.upload(ctx, "public/backing.log", []byte("log")); err != nil {
		return err
	}
	m := b.meta("public/live.log")
	if err := b.store.Link(ctx, m, "public/backing.log"); err != nil {
		return err
	}
	return b.want(m.Name, Artifact{Op: Link, Expires: m.Expires, Body: []byte("log")})
}

func uploadDoesNotBecomeRedirect(ctx context.Context, b *bench) error {
	content := []byte("hello")
	if err := b.upload(ctx, "public/a", content); err != nil {
		return err
	}
	if err := wantMalformed(b.store.Redirect(ctx, b.meta("public/a"), "https://example.com/")); err != nil {
		return fmt.Errorf("Redirect in place of an upload: %w", err)
	}
	return b.wantUpload("public/a", content)
}

func explanationsAreVisible(ctx context.Context, b *bench) error {
	for _, why := range []artifact.Absence{artifact.FileMissing, artifact.InvalidResource, artifact.NotReadable} {
		m := b.meta("public/" + string(why))
		const detail = "no such file: \"x\"\nin the task directory"
		if err := b.store.Explain(ctx, m, why, detail); err != nil {
			return fmt.Errorf("Explain as %s: %w", why, err)
		}
		err := b.want(m.Name, Artifact{Op: Explain, Expires: m.Expires, Absence: why, Detail: detail})
		if why == artifact.NotReadable && err != nil {
			// Not every queue knows this reason; the closest one will do.
			err = b.want(m.Name, Artifact{Op: Explain, Expires: m.Expires, Absence: artifact.InvalidResource, Detail: detail})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func lateExpiryIsMalformed(ctx context.Context, b *bench) error {
	m := b.meta("public/a")
	m.Expires = b.claim.Task().Expires.AddDate(0, 0, 1)
	content := []byte("hello")
	if err := wantMalformed(b.store.Upload(ctx, m, plain(content))); err != nil {
		return fmt.Errorf("Upload of what expires after the task: %w", err)
	}
	return b.wantNone(m.Name, content)
}

func otherTypeIsMalformed(ctx context.Context, b *bench) error {
	if err := b.upload(ctx, "public/a", []byte("hello")); err != nil {
		return err
	}
	m := b.meta("public/a")
	m.ContentType = "application/json"
	if err := wantMalformed(b.store.Upload(ctx, m, plain([]byte("{}")))); err != nil {
		return fmt.Errorf("Upload with another content type: %w", err)
	}
	return b.wantUpload("public/a", []byte("hello"))
}

func exceptionTakesArtifacts(ctx context.Context, b *bench) error {
	if err := b.claim.Resolve(ctx, run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}); err != nil {
		return err
	}
	return uploadsAreVisible(ctx, b)
}

func completedRunTakesNone(ctx context.Context, b *bench) error {
	if err := b.claim.Resolve(ctx, run.Resolution{Outcome: run.Completed}); err != nil {
		return err
	}
	content := []byte("hello")
	if err := b.store.Upload(ctx, b.meta("public/a"), plain(content)); !errors.Is(err, queue.ErrClaimLost) {
		return fmt.Errorf("Upload to a completed run returned %q, want ErrClaimLost", fmt.Sprint(err))
	}
	return b.wantNone("public/a", content)
}

func runsHaveTheirOwn(ctx context.Context, b *bench) error {
	other := &bench{tb: b.tb, h: b.h, claim: b.h.Claim(b.tb)}
	other.store = b.h.Opener(b.tb).Open(other.claim)
	for content, of := range map[string]*bench{"one": b, "two": other} {
		if err := of.upload(ctx, "public/a", []byte(content)); err != nil {
			return err
		}
	}
	return errors.Join(b.wantUpload("public/a", []byte("one")), other.wantUpload("public/a", []byte("two")))
}

func mayBeUsedConcurrently(ctx context.Context, b *bench) error {
	const n = 16
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("public/%d", i)
			if i%4 == 3 {
				errs[i] = b.store.Redirect(ctx, b.meta(name), "https://example.com/"+name)
				return
			}
			errs[i] = b.upload(ctx, name, []byte(name))
		})
	}
	wg.Wait()
	for i := range n {
		name := fmt.Sprintf("public/%d", i)
		if i%4 == 3 {
			errs = append(errs, b.wantRedirect(name, "https://example.com/"+name))
			continue
		}
		errs = append(errs, b.wantUpload(name, []byte(name)))
	}
	return errors.Join(errs...)
}

func endsWhenCanceled(ctx context.Context, b *bench) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	content := []byte("hello")
	if err := b.store.Upload(ctx, b.meta("public/a"), plain(content)); err == nil {
		return errors.New("Upload with a canceled context returned nil")
	}
	return b.wantNone("public/a", content)
}
