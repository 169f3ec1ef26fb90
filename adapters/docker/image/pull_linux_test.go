package image_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// server is a registry on loopback that has the test image as test/image:1.
type server struct {
	host, digest string
	password     atomic.Value // string that it wants from "user"; empty for nothing
	blobs        atomic.Int32 // that were fetched
	before       func()       // is called before each of them, if set
}

// serve serves a registry with a password.
func serve(tb testing.TB, password string) *server {
	tb.Helper()
	s := &server{}
	s.password.Store("")
	handler := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := s.password.Load()
		if user, got, ok := r.BasicAuth(); want != "" && (!ok || user != "user" || got != want) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			s.blobs.Add(1)
			if s.before != nil {
				s.before()
			}
		}
		handler.ServeHTTP(w, r)
	}))
	tb.Cleanup(web.Close)
	s.host = strings.TrimPrefix(web.URL, "http://")
	archive := saved(tb)
	img, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }, nil)
	if err != nil {
		tb.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{Labels: map[string]string{"registry": s.host}}) // which no daemon has yet
	if err != nil {
		tb.Fatal(err)
	}
	ref, err := name.ParseReference(s.host + "/test/image:1")
	if err != nil {
		tb.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithAuth(authn.Anonymous), remote.WithTransport(transport)); err != nil {
		tb.Fatal(err)
	}
	hash, err := img.Digest()
	if err != nil {
		tb.Fatal(err)
	}
	s.digest = hash.String()
	s.password.Store(password)
	return s
}

// tagged and digested return references to the image.
func (s *server) tagged() docker.ImageRef { return docker.ImageRef{Name: s.host + "/test/image:1"} }

func (s *server) digested() docker.ImageRef {
	return docker.ImageRef{Name: s.host + "/test/image@" + s.digest}
}

func TestPull(t *testing.T) {
	r := serve(t, "")
	s := open(t, image.Config{})
	for _, ref := range []docker.ImageRef{r.digested(), r.tagged(), r.tagged()} {
		i, log, err := acquire(t, s, ref, nil)
		if err != nil {
			t.Errorf("%s: %v", ref.Name, err)
			continue
		}
		if !strings.Contains(log, "[docker] Pull") {
			t.Errorf("the log of pulling %s says nothing of it: %s", ref.Name, log)
		}
		if !strings.HasPrefix(i.ID, "sha256:") || i.ArchiveHash != "" {
			t.Errorf("the image's hashes are %q and %q", i.ID, i.ArchiveHash)
		}
		i.Release()
	}
	_, log, err := acquire(t, s, docker.ImageRef{Name: r.host + "/test/image:1@" + r.digest}, nil)
	if err != nil || strings.Contains(log, "Pulling") {
		t.Errorf("what is named by digest is pulled twice: %v\n%s", err, log)
	}
	_, _, err = acquire(t, s, docker.ImageRef{Name: r.host + "/test/missing:1"}, nil)
	wantFault(t, err, fault.Malformed, "/test/missing:1 cannot be pulled")
	_, _, err = acquire(t, s, docker.ImageRef{Name: "Not A Name"}, nil)
	wantFault(t, err, fault.Malformed, `"Not A Name" is not the name of an image`)
}

func TestImageIsPulledOnceForAllThatWantIt(t *testing.T) {
	r := serve(t, "")
	s := open(t, image.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, log, err := acquire(t, s, r.tagged(), nil); err != nil {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
	wg.Wait()
	// It has a layer, which the daemon may have, and a document about it.
	if n := r.blobs.Load(); n < 1 || n > 2 {
		t.Errorf("%d blobs were fetched, want 1 or 2", n)
	}
}

func TestImagesArePulledAhead(t *testing.T) {
	r := serve(t, "secret")
	account := image.Registry{Host: r.host, Username: "user", Password: "secret"}
	s := open(t, image.Config{
		Pull: image.PullMissing, Registries: []image.Registry{account},
		Preload: []string{r.host + "/test/missing:1", "Not A Name", r.tagged().Name},
	})
	if r.blobs.Load() == 0 {
		t.Error("nothing was pulled ahead")
	}
	if _, log, err := acquire(t, s, r.tagged(), nil); err != nil || strings.Contains(log, "Pulling") {
		t.Errorf("what was pulled ahead is pulled again: %v\n%s", err, log)
	}
	// That it is there does not make it everybody's.
	refused := errors.New("scopes are missing")
	_, _, err := acquireAs(t, s, r.tagged(), docker.ImageOptions{Authorize: func(context.Context, ...task.Scopes) error { return refused }})
	if !errors.Is(err, refused) {
		t.Errorf("without the scope: %v", err)
	}
}

func TestPullWithLogin(t *testing.T) {
	const password = "very-secret"
	r := serve(t, password)
	good := image.Registry{Host: r.host, Username: "user", Password: password}
	bad := image.Registry{Host: r.host, Username: "user", Password: "wrong"}
	for _, tt := range []struct {
		title      string
		registries []image.Registry
		want       string // message of the fault
	}{
		{"no account", nil, "cannot be pulled"},
		{"a wrong password", []image.Registry{bad}, "cannot be pulled"},
		{"an account elsewhere", []image.Registry{{Host: "elsewhere", Username: "user", Password: password}, {Host: r.host + "/tes", Username: "user", Password: password}}, "cannot be pulled"},
		{"an account", []image.Registry{{Host: "elsewhere", Username: "a", Password: "b"}, good}, ""},
		{"the account that is named most exactly", []image.Registry{bad, {Host: r.host + "/test", Username: "user", Password: password}, bad}, ""},
	} {
		t.Run(tt.title, func(t *testing.T) {
			_, log, err := acquire(t, open(t, image.Config{Registries: tt.registries}), r.tagged(), nil)
			if tt.want == "" && err != nil || strings.Contains(log, password) {
				t.Errorf("%v\n%s", err, log)
			}
			if tt.want != "" {
				wantFault(t, err, fault.Malformed, tt.want)
			}
		})
	}
}

func TestPrivateImagesNeedAScope(t *testing.T) {
	const password = "very-secret"
	r := serve(t, password)
	account := image.Registry{Host: r.host, Username: "user", Password: password}
	s := open(t, image.Config{Registries: []image.Registry{account}})
	const prefix = "docker-worker:image:"
	for _, ref := range []docker.ImageRef{r.tagged(), r.digested()} {
		// The first time nothing is there, the second time the image is.
		for range 2 {
			for _, tt := range []struct {
				scopes task.Scopes
				want   bool
			}{
				{nil, false},
				{task.Scopes{prefix + r.host + "/test/other:1"}, false},
				{task.Scopes{prefix + ref.Name}, true},
				{task.Scopes{prefix + r.host + "/*"}, true},
			} {
				_, _, err := acquireAs(t, s, ref, docker.ImageOptions{Authorize: having(tt.scopes)})
				if tt.want != (err == nil) {
					t.Errorf("%s with %v: %v", ref.Name, tt.scopes, err)
				}
			}
		}
	}
	account.Public = true
	if _, _, err := acquireAs(t, open(t, image.Config{Registries: []image.Registry{account}}), r.tagged(), docker.ImageOptions{Authorize: having(nil)}); err != nil {
		t.Errorf("an image of an account that is for all: %v", err)
	}
}

// having authorizes as the worker does for a task with scopes.
func having(scopes task.Scopes) func(context.Context, ...task.Scopes) error {
	return func(_ context.Context, anyOf ...task.Scopes) error {
		if scopes.SatisfyAny(anyOf...) {
			return nil
		}
		return fault.Malformedf("scopes are missing")
	}
}

func TestImagesOfDockerHubHaveShortNamesInScopes(t *testing.T) {
	hub := image.Registry{Host: "docker.io", Username: "user", Password: "secret"}
	s := open(t, image.Config{Registries: []image.Registry{hub}})
	for short, full := range map[string]string{
		"ubuntu": "docker.io/library/ubuntu:latest", "org/image:1": "docker.io/org/image:1",
	} {
		var asked []string
		refused := errors.New("scopes are missing")
		_, _, err := acquireAs(t, s, docker.ImageRef{Name: short}, docker.ImageOptions{Authorize: func(_ context.Context, anyOf ...task.Scopes) error {
			for _, set := range anyOf {
				asked = append(asked, strings.Join(set, " "))
			}
			return refused
		}})
		if !strings.Contains(short, ":") {
			short += ":latest"
		}
		want := "docker-worker:image:" + short + " docker-worker:image:" + full
		if got := strings.Join(asked, " "); got != want || !errors.Is(err, refused) {
			t.Errorf("asked for %s, want %s: %v", got, want, err)
		}
	}
}

// What the daemon has of a private registry must not outlive the right to it.
func TestRegistryIsAskedWhetherAnImageIsStillGiven(t *testing.T) {
	const password = "very-secret"
	for _, tt := range []struct {
		title string
		ref   func(*server) docker.ImageRef
		pull  image.Pull
	}{
		{"an image that need not be pulled again", (*server).tagged, image.PullMissing},
		{"one that is named by digest", (*server).digested, image.PullAlways},
		{"one that is pulled each time", (*server).tagged, image.PullAlways},
	} {
		t.Run(tt.title, func(t *testing.T) {
			r := serve(t, password)
			account := image.Registry{Host: r.host, Username: "user", Password: password}
			with := image.Config{Pull: tt.pull, Registries: []image.Registry{account}}
			s := open(t, with)
			for range 2 {
				if _, log, err := acquire(t, s, tt.ref(r), nil); err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
			}
			without := open(t, image.Config{Pull: tt.pull})
			for _, ref := range []docker.ImageRef{tt.ref(r), r.digested()} {
				_, _, err := acquire(t, without, ref, nil)
				wantFault(t, err, fault.Malformed, "cannot be pulled")
			}
			r.password.Store("changed")
			_, _, err := acquire(t, s, tt.ref(r), nil)
			wantFault(t, err, fault.Malformed, "cannot be pulled")
			r.password.Store("")
			if _, log, err := acquire(t, without, tt.ref(r), nil); err != nil {
				t.Errorf("an image that is everybody's by now: %v\n%s", err, log)
			}
		})
	}
}

func TestTagsOfTheWorkerAreNoNamesForTasks(t *testing.T) {
	s := open(t, image.Config{Pull: image.PullMissing})
	src := &source{archive: saved(t), key: "artifact:private"}
	if _, log, err := acquire(t, s, archiveRef, src.fetch); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	list, err := connect(t).ImageInspect(t.Context(), dockertest.Image)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, tag := range list.RepoTags {
		if tag != dockertest.Image {
			tried++
			_, _, err := acquire(t, s, docker.ImageRef{Name: tag}, nil)
			wantFault(t, err, fault.Malformed, "there is no registry taskcluster-worker.invalid")
		}
	}
	if tried == 0 {
		t.Error("the worker has given the image no tag")
	}
}
