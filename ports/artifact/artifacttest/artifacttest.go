// Package artifacttest tests implementations of the artifact port, and has
// stores in memory for the tests of everything else.
package artifacttest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Harness sets up the stores under test. Its methods may fail the test.
type Harness interface {
	// Opener returns what opens the stores. Every call during a test returns
	// the same one.
	Opener(tb testing.TB) artifact.Opener

	// Claim claims a run of a new task, whose expiry is at least an hour away.
	Claim(tb testing.TB) queue.Claim

	// Break has the next n transfers of content end half way.
	Break(tb testing.TB, n int)

	// Artifact returns an artifact of a run as its consumers see it, and
	// whether there is one. Encoding and Body may be of the decoded content. A
	// link has those of what it leads to, and need not say what that is.
	Artifact(tb testing.TB, id task.RunID, name string) (Artifact, bool)
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := c.run(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []check{
	{"uploads are visible", uploadsAreVisible},
	{"empty content is visible", emptyContentIsVisible},
	{"encoded content is visible", encodedContentIsVisible},
	{"long content is visible", longContentIsVisible},
	{"names are taken as they are", namesAreTakenAsTheyAre},
	{"a broken transfer is repeated from the start", brokenTransferIsRepeated},
	{"content that cannot be opened is no artifact", contentThatCannotBeOpened},
	{"content that cannot be read is no artifact", contentThatCannotBeRead},
	{"content that is too short is no artifact", contentThatIsTooShort},
	{"a repeated upload replaces or is refused", repeatedUpload},
	{"redirects are visible", redirectsAreVisible},
	{"a redirect may be redirected", redirectMayBeRedirected},
	{"a redirect may become a link", redirectMayBecomeLink},
	{"links are visible", linksAreVisible},
	{"an upload does not become a redirect", uploadDoesNotBecomeRedirect},
	{"explanations are visible", explanationsAreVisible},
	{"an expiry after the task's is malformed", lateExpiryIsMalformed},
	{"another content type is malformed", otherTypeIsMalformed},
	{"an exception takes artifacts", exceptionTakesArtifacts},
	{"a completed run takes no artifacts", completedRunTakesNone},
	{"runs have their own artifacts", runsHaveTheirOwn},
	{"may be used concurrently", mayBeUsedConcurrently},
	{"ends when canceled", endsWhenCanceled},
}

// check is a law, checked on a run of a new task.
type check struct {
	name  string
	check func(context.Context, *bench) error
}

func (c check) run(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	claim := h.Claim(tb)
	return c.check(ctx, &bench{tb: tb, h: h, claim: claim, store: h.Opener(tb).Open(claim)})
}

// bench is a run with its store.
type bench struct {
	tb    testing.TB
	h     Harness
	claim queue.Claim
	store artifact.Store
}

// meta describes an artifact of the run.
func (b *bench) meta(name string) artifact.Meta {
	return artifact.Meta{Name: name, ContentType: "text/plain; charset=utf-8", Expires: b.expires()}
}

// expires returns a time of milliseconds at which an artifact may expire.
func (b *bench) expires() time.Time {
	return b.claim.Task().Expires.Add(-10 * time.Minute).Truncate(time.Millisecond)
}

// upload stores content under a name.
func (b *bench) upload(ctx context.Context, name string, content []byte) error {
	if err := b.store.Upload(ctx, b.meta(name), plain(content)); err != nil {
		return fmt.Errorf("upload %q: %w", name, err)
	}
	return nil
}

// want returns an error unless consumers see that artifact.
func (b *bench) want(name string, want Artifact) error {
	got, ok := b.h.Artifact(b.tb, b.claim.Run(), name)
	if !ok {
		return fmt.Errorf("there is no artifact %q", name)
	}
	body, err := decoded(got)
	if err != nil {
		return fmt.Errorf("artifact %q: %w", name, err)
	}
	if !bytes.Equal(body, want.Body) {
		return fmt.Errorf("artifact %q has %d bytes that are not the %d uploaded ones", name, len(body), len(want.Body))
	}
	got.Body, want.Body, got.Encoding, want.Encoding, got.Target = nil, nil, "", "", ""
	if !got.Expires.Equal(want.Expires) {
		return fmt.Errorf("artifact %q expires at %v, want %v", name, got.Expires, want.Expires)
	}
	got.Expires, want.Expires = time.Time{}, time.Time{}
	if want.Op == Link || want.Op == Explain {
		got.ContentType, want.ContentType = "", ""
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		return fmt.Errorf("artifact %q is %+v, want %+v", name, got, want)
	}
	return nil
}

// wantUpload returns an error unless consumers see an upload of content.
func (b *bench) wantUpload(name string, content []byte) error {
	m := b.meta(name)
	return b.want(name, Artifact{Op: Upload, ContentType: m.ContentType, Expires: m.Expires, Body: content})
}

// wantNone returns an error if consumers see an upload of that name as whole.
func (b *bench) wantNone(name string, content []byte) error {
	if err := b.wantUpload(name, content); err == nil {
		return fmt.Errorf("artifact %q is there", name)
	}
	return nil
}

func decoded(a Artifact) ([]byte, error) {
	switch a.Encoding {
	case "", "identity":
		return a.Body, nil
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(a.Body))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	default:
		return nil, fmt.Errorf("unknown encoding %q", a.Encoding)
	}
}

// plain returns content without an encoding.
func plain(content []byte) artifact.Content {
	return artifact.Content{
		Size:   int64(len(content)),
		Length: int64(len(content)),
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// compressed returns content with the encoding gzip.
func compressed(content []byte) artifact.Content {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	// Writing to memory does not fail.
	_, _ = z.Write(content)
	_ = z.Close()
	c := plain(b.Bytes())
	c.Encoding, c.Length = "gzip", int64(len(content))
	return c
}

// wantMalformed returns an error unless err blames the task.
func wantMalformed(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Malformed || f.Message == "" {
		return fmt.Errorf("returned %q, want a fault of the task", fmt.Sprint(err))
	}
	return nil
}
