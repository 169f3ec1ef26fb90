package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/client"
	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/image"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// daemon is there for all tests.
var daemon *dockertest.Daemon

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m, &daemon)) }

// connect returns a client of the daemon.
func connect(tb testing.TB) *client.Client {
	tb.Helper()
	c, err := daemon.Client()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// open returns a store, and removes all that stores have brought with the test.
func open(tb testing.TB, c image.Config) docker.Images {
	tb.Helper()
	d := connect(tb)
	tb.Cleanup(func() {
		ctx := context.Background()
		list, err := d.ImageList(ctx, client.ImageListOptions{})
		if err != nil {
			tb.Error(err)
		}
		for _, i := range list.Items {
			for _, tag := range i.RepoTags {
				if tag != dockertest.Image {
					_, err := d.ImageRemove(ctx, tag, client.ImageRemoveOptions{Force: true})
					if err != nil && !errdefs.IsNotFound(err) {
						tb.Error(err)
					}
				}
			}
		}
	})
	s, err := image.New(c)(tb.Context(), d, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// taskLog is a task log to read.
type taskLog struct {
	mu sync.Mutex
	strings.Builder
}

func (l *taskLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(p)
}

// acquire acquires an image with the scope for it, and checks that it is one that
// runs.
func acquire(tb testing.TB, s docker.Images, r docker.ImageRef, f fetch.Fetch) (docker.Image, string, error) {
	tb.Helper()
	return acquireAs(tb, s, r, docker.ImageOptions{Fetch: f, Authorize: func(context.Context, ...task.Scopes) error { return nil }})
}

func acquireAs(tb testing.TB, s docker.Images, r docker.ImageRef, o docker.ImageOptions) (docker.Image, string, error) {
	tb.Helper()
	log := new(taskLog)
	o.Log = tasklog.New(log)
	i, err := s.Acquire(tb.Context(), r, o)
	if err == nil {
		if _, err := connect(tb).ImageInspect(tb.Context(), i.ID); err != nil {
			tb.Errorf("the image is not on the daemon: %v", err)
		}
	}
	return i, log.String(), err
}

// wantFault checks what kind of fault an error is, and that its message says
// what it should.
func wantFault(tb testing.TB, err error, kind fault.Kind, message string) {
	tb.Helper()
	if f := fault.Classify(err); f == nil || f.Kind != kind || !strings.Contains(f.Message, message) {
		tb.Errorf("got %v, want a fault of kind %d with %q", err, kind, message)
	}
}

// saved returns the archive of the test image, as docker save writes it.
func saved(tb testing.TB) []byte {
	tb.Helper()
	r, err := connect(tb).ImageSave(tb.Context(), []string{dockertest.Image})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	archive, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return archive
}

func TestImagesThatTheOperatorHasAreUsedWhereThatIsAllowed(t *testing.T) {
	s := open(t, image.Config{Pull: image.PullMissing})
	if _, _, err := acquire(t, s, docker.ImageRef{Name: dockertest.Image}, nil); err != nil {
		t.Error(err)
	}
}

// source serves one archive as an artifact of a task.
type source struct {
	archive []byte
	key     string
	opened  atomic.Int32
	err     error // at the end of the content
}

func (s *source) fetch(context.Context, fetch.Reference) (fetch.Content, error) {
	return fetch.Content{Key: s.key, TaskID: "fN1SbArXTPSVFNUvaOlinQ", Open: func(context.Context) (io.ReadCloser, int64, error) {
		s.opened.Add(1)
		var r io.Reader = bytes.NewReader(s.archive)
		if s.err != nil {
			r = io.MultiReader(r, failing{s.err})
		}
		return io.NopCloser(r), int64(len(s.archive)), nil
	}}, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

var archiveRef = docker.ImageRef{Archive: fetch.Reference{TaskID: task.ID("fN1SbArXTPSVFNUvaOlinQ"), Artifact: "public/image.tar"}}

// compressed returns content in a compressed form.
func compressed(tb testing.TB, content []byte, by func(io.Writer) io.WriteCloser) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := by(&b)
	_, err := w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// files returns the regular files of an archive, and an archive of such files.
func files(tb testing.TB, archive []byte) map[string][]byte {
	tb.Helper()
	found := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			tb.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if found[h.Name], err = io.ReadAll(r); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func archiveOf(tb testing.TB, files map[string][]byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// ociLayout returns the test image in the OCI layout, without what docker save
// adds to it.
func ociLayout(tb testing.TB) []byte {
	tb.Helper()
	var layer, config []byte
	for name, content := range files(tb, saved(tb)) {
		switch {
		case strings.HasSuffix(name, "/layer.tar"):
			layer = content
		case strings.HasSuffix(name, ".json") && !strings.Contains(name, "/") && name != "manifest.json":
			config = content
		}
	}
	all := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion": "1.0.0"}`)}
	add := func(content []byte, kind string) string {
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:])
		all["blobs/sha256/"+digest] = content
		return fmt.Sprintf(`{"mediaType": "application/vnd.oci.image.%s", "digest": "sha256:%s", "size": %d}`, kind, digest, len(content))
	}
	zipped := compressed(tb, layer, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	manifest := fmt.Sprintf(`{"schemaVersion": 2, "config": %s, "layers": [%s]}`, add(config, "config.v1+json"), add(zipped, "layer.v1.tar+gzip"))
	index := fmt.Sprintf(`{"schemaVersion": 2, "manifests": [%s]}`, add([]byte(manifest), "manifest.v1+json"))
	all["index.json"] = []byte(index)
	return archiveOf(tb, all)
}

func TestLoad(t *testing.T) {
	forms := map[string]func(io.Writer) io.WriteCloser{
		"plain": func(w io.Writer) io.WriteCloser { return plain{w} },
		"gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"lz4":   func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	for layout, archive := range map[string][]byte{"the old layout": saved(t), "the OCI layout": ociLayout(t)} {
		for form, by := range forms {
			t.Run(layout+", "+form, func(t *testing.T) {
				s := open(t, image.Config{})
				src := &source{archive: compressed(t, archive, by), key: "artifact:" + layout + form}
				sum := sha256.Sum256(src.archive)
				hash := "sha256:" + hex.EncodeToString(sum[:])
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						i, log, err := acquire(t, s, archiveRef, src.fetch)
						if err != nil || i.ArchiveHash != hash {
							t.Errorf("%v, hash %s, want %s\n%s", err, i.ArchiveHash, hash, log)
						}
					})
				}
				wg.Wait()
				// The next worker finds it.
				i, log, err := acquire(t, open(t, image.Config{}), archiveRef, src.fetch)
				if err != nil || i.ArchiveHash != hash || !strings.Contains(log, "loaded before") {
					t.Errorf("%v, hash %s, want %s\n%s", err, i.ArchiveHash, hash, log)
				}
				if n := src.opened.Load(); n != 1 {
					t.Errorf("the archive was fetched %d times", n)
				}
			})
		}
	}
}

// plain compresses nothing.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// A task proves its right to an archive by resolving it, whatever is there.
func TestArchivesAreResolvedForEachTask(t *testing.T) {
	s := open(t, image.Config{})
	src := &source{archive: saved(t), key: "artifact:private"}
	if _, log, err := acquire(t, s, archiveRef, src.fetch); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	_, _, err := acquire(t, s, archiveRef, func(context.Context, fetch.Reference) (fetch.Content, error) {
		return fetch.Content{}, fault.Malformedf("the task may not read it")
	})
	wantFault(t, err, fault.Malformed, "the task may not read it")
}

func TestArchivesThatAreNoImage(t *testing.T) {
	twice := files(t, saved(t))
	entry := strings.TrimSuffix(strings.TrimPrefix(string(bytes.TrimSpace(twice["manifest.json"])), "["), "]")
	twice["manifest.json"] = []byte("[" + entry + "," + entry + "]")
	broken := files(t, saved(t))
	broken["manifest.json"] = []byte(`[{"Config": "missing.json", "Layers": []}]`)
	full := saved(t)
	for _, tt := range []struct {
		title   string
		source  *source
		kind    fault.Kind
		message string
	}{
		{"garbage", &source{archive: []byte("garbage, and nothing else"), key: "a"}, fault.Malformed, "not an image as docker save writes it"},
		{"nothing", &source{key: "b"}, fault.Malformed, "holds no image"},
		{"half an archive", &source{archive: full[:len(full)/2], key: "c"}, fault.Malformed, "not an image as docker save writes it"},
		{"an archive of other files", &source{archive: archiveOf(t, map[string][]byte{"a": []byte("b")}), key: "d"}, fault.Malformed, "holds no image"},
		{"two images", &source{archive: archiveOf(t, twice), key: "e"}, fault.Malformed, "holds 2 images"},
		{"what the daemon does not understand", &source{archive: archiveOf(t, broken), key: "f"}, fault.Malformed, "cannot be loaded"},
		{"a source that fails at the end", &source{archive: full, key: "g", err: fault.Unavailablef(io.EOF, "gone")}, fault.Unavailable, "gone"},
		{"a URL without a hash", &source{archive: full}, fault.Malformed, "needs a sha256"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			_, log, err := acquire(t, open(t, image.Config{}), archiveRef, tt.source.fetch)
			wantFault(t, err, tt.kind, tt.message)
			if err == nil {
				t.Log(log)
			}
		})
	}
}

func TestArchiveTakesNoNamesOfOtherImages(t *testing.T) {
	d := connect(t)
	before, err := d.ImageInspect(t.Context(), dockertest.Image)
	if err != nil {
		t.Fatal(err)
	}
	hostile := files(t, saved(t))
	for name, content := range hostile {
		if strings.HasSuffix(name, ".json") && !strings.Contains(name, "/") && name != "manifest.json" {
			hostile[name] = bytes.Replace(content, []byte(`"os":"linux"`), []byte(`"os":"linux","author":"hostile"`), 1)
		}
	}
	src := &source{archive: archiveOf(t, hostile), key: "hostile"}
	i, log, err := acquire(t, open(t, image.Config{}), archiveRef, src.fetch)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	after, err := d.ImageInspect(t.Context(), dockertest.Image)
	if err != nil || after.ID != before.ID {
		t.Errorf("%s is another image now: %v", dockertest.Image, err)
	}
	if i.ID == before.ID {
		t.Error("the hostile image is the honest one: the test tests nothing")
	}
}

func TestImagesAreRemovedWhenDiskIsShort(t *testing.T) {
	host := serve(t, "").host
	enough := open(t, image.Config{})
	pulled := docker.ImageRef{Name: host + "/test/image:1"}
	i, _, err := acquire(t, enough, pulled, nil)
	if err != nil {
		t.Fatal(err)
	}
	i.Release()
	held, d := i.ID, connect(t)
	changed := files(t, saved(t))
	for name, content := range changed {
		if strings.HasSuffix(name, ".json") && !strings.Contains(name, "/") && name != "manifest.json" {
			changed[name] = bytes.Replace(content, []byte(`"os":"linux"`), []byte(`"os":"linux","author":"x"`), 1)
		}
	}
	src := &source{archive: archiveOf(t, changed), key: "used"}
	short := open(t, image.Config{MinFree: 1 << 60, Pull: image.PullMissing})
	release := short.Hold(held)
	if _, _, err := acquire(t, short, docker.ImageRef{Name: dockertest.Image}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageInspect(t.Context(), pulled.Name); err != nil {
		t.Errorf("an image that an earlier worker's container uses is gone: %v", err)
	}
	release()
	used, log, err := acquire(t, short, archiveRef, src.fetch)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if _, _, err := acquire(t, short, docker.ImageRef{Name: dockertest.Image}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageInspect(t.Context(), pulled.Name); !errdefs.IsNotFound(err) {
		t.Errorf("an image that nobody uses is left: %v", err)
	}
	for _, id := range []string{used.ID, dockertest.Image} {
		if _, err := d.ImageInspect(t.Context(), id); err != nil {
			t.Errorf("an image that is used, or not the worker's, is gone: %v", err)
		}
	}
}

// largeImage returns the archive of an image whose only layer is of random
// content.
func largeImage(tb testing.TB, size int) []byte {
	tb.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	layer := archiveOf(tb, map[string][]byte{"file": content})
	sum := sha256.Sum256(layer)
	return archiveOf(tb, map[string][]byte{
		"layer.tar":     layer,
		"config.json":   fmt.Appendf(nil, `{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:%x"]}}`, sum),
		"manifest.json": []byte(`[{"Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"]}]`),
	})
}

// free returns how many bytes are free on the daemon's disk.
func free(tb testing.TB) int64 {
	tb.Helper()
	info, err := connect(tb).Info(tb.Context(), client.InfoOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(info.Info.DockerRootDir, &st); err != nil {
		tb.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func TestImageThatWasUsedLongestAgoIsTheFirstToGo(t *testing.T) {
	const size = 40 << 20
	enough := open(t, image.Config{})
	sources := map[string]*source{}
	use := func(s docker.Images, key string) string {
		t.Helper()
		if sources[key] == nil {
			sources[key] = &source{archive: largeImage(t, size), key: key}
		}
		i, log, err := acquire(t, s, archiveRef, sources[key].fetch)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		i.Release()
		return i.ID
	}
	first, second := use(enough, "first"), use(enough, "second")
	use(enough, "first") // again, and so the second was used longest ago
	short := open(t, image.Config{Pull: image.PullMissing, MinFree: free(t) + size/2})
	if _, _, err := acquire(t, short, docker.ImageRef{Name: dockertest.Image}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t).ImageInspect(t.Context(), first); err != nil {
		t.Errorf("the image that was used last is gone: %v", err)
	}
	if _, err := connect(t).ImageInspect(t.Context(), second); !errdefs.IsNotFound(err) {
		t.Errorf("the image that was used longest ago is left: %v", err)
	}
}
