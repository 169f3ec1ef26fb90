// Package image brings images to a Docker daemon: from registries, and from
// archives that are artifacts of tasks or have a URL.
//
// What it has brought carries a tag of its own, in a repository that no registry
// has, which says when the image was last used and outlives the worker. Only
// such images are ever removed, and never while a task uses them.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// repository is that of the tags of images that were brought.
const (
	host       = "taskcluster-worker.invalid"
	repository = host + "/image"
)

// Config says where images come from, and how long they stay.
type Config struct {
	Registries []Registry
	Pull       Pull     // default PullAlways
	Preload    []string // names of images to pull ahead
	MinFree    int64    // bytes: with less on the daemon's disk, images are removed; 0 for never
}

// Pull says when a registry is asked for an image that the daemon has already.
// One that is named by digest is not.
type Pull string

// The ways to pull.
const (
	PullAlways  Pull = "always"  // a tag may have moved
	PullMissing Pull = "missing" // only for what the daemon lacks
)

// Store implements [docker.Images].
type Store struct {
	config Config
	daemon *client.Client
	log    *slog.Logger
	disk   string // the daemon's directory, where free space is looked for

	mu    sync.Mutex
	used  map[string]int       // tasks that use an image, by its ID
	calls map[string]*bringing // what is being brought, by its key
}

// New returns what makes a store of the images on a daemon.
func New(c Config) docker.ImagesOf {
	return func(ctx context.Context, daemon *client.Client, log *slog.Logger) (docker.Images, error) {
		if c.Pull == "" {
			c.Pull = PullAlways
		}
		s := &Store{config: c, daemon: daemon, log: log, used: map[string]int{}, calls: map[string]*bringing{}}
		if c.MinFree > 0 {
			info, err := daemon.Info(ctx, client.InfoOptions{})
			if err != nil {
				return nil, fmt.Errorf("find the daemon's disk: %w", err)
			}
			s.disk = info.Info.DockerRootDir
		}
		for _, name := range c.Preload {
			if err := s.preload(ctx, name); err != nil {
				log.WarnContext(ctx, "an image could not be pulled ahead", slog.String("image", name), slog.Any("error", err))
			}
		}
		return s, nil
	}
}

// preload pulls an image that no task has asked for yet.
func (s *Store) preload(ctx context.Context, name string) error {
	n, err := parseName(name)
	if err != nil {
		return err
	}
	i, err := s.named(ctx, n, tasklog.New(discard{}))
	if err == nil {
		i.Release()
	}
	return err
}

// discard is a task log that nobody reads.
type discard struct{}

// Write implements io.Writer.
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Acquire implements docker.Images.
func (s *Store) Acquire(ctx context.Context, r docker.ImageRef, o docker.ImageOptions) (docker.Image, error) {
	s.makeRoom(ctx)
	if r.Name != "" {
		n, err := parseName(r.Name)
		if err == nil {
			err = s.authorize(ctx, n, o.Authorize)
		}
		if err != nil {
			return docker.Image{}, err
		}
		return s.named(ctx, n, o.Log)
	}
	if o.Fetch == nil {
		return docker.Image{}, fault.Malformedf("payload.image: archives of images are not available on this worker")
	}
	content, err := o.Fetch(ctx, r.Archive)
	if err != nil {
		return docker.Image{}, fmt.Errorf("image %s: %w", r.Archive, err)
	}
	if content.Key == "" {
		return docker.Image{}, fault.Malformedf("payload.image: an archive at a URL needs a sha256")
	}
	return s.acquire(ctx, content.Key, tagOf(content.Key), o.Log, func(ctx context.Context) error { return s.load(ctx, r.Archive, content, o.Log) })
}

// named returns an image that has a name.
func (s *Store) named(ctx context.Context, n imageName, log *tasklog.Log) (docker.Image, error) {
	return s.acquire(ctx, n.full, n.full, log, func(ctx context.Context) error { return s.pull(ctx, n, log) })
}

// tagOf returns the tag of the image that a key stands for.
func tagOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return repository + ":" + hex.EncodeToString(sum[:16])
}

// hashTag returns the tag that tells the hash of the archive which an image with
// another tag came in.
func hashTag(tag, hexadecimal string) string { return tag + "-" + hexadecimal }

// archiveHash returns what hashTag has kept, or "".
func archiveHash(tag string, tags []string) string {
	for _, t := range tags {
		if hexadecimal, ok := strings.CutPrefix(t, tag+"-"); ok {
			return "sha256:" + hexadecimal
		}
	}
	return ""
}

// acquire brings the image of a key, which then has a name, and holds it.
func (s *Store) acquire(ctx context.Context, key, name string, log *tasklog.Log, bring func(context.Context) error) (docker.Image, error) {
	for attempt := 0; ; attempt++ {
		if err := s.once(ctx, key, log, bring); err != nil {
			return docker.Image{}, err
		}
		image, err := s.hold(ctx, name)
		if !errdefs.IsNotFound(err) || attempt == 2 {
			return image, err
		}
		// It was removed by somebody else in between.
	}
}

// hold returns the image with a name, which from then on is in use.
func (s *Store) hold(ctx context.Context, name string) (docker.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.daemon.ImageInspect(ctx, name)
	if err != nil {
		return docker.Image{}, fmt.Errorf("inspect image: %w", err)
	}
	s.used[i.ID]++
	image := docker.Image{ID: i.ID, ArchiveHash: archiveHash(name, i.RepoTags), Release: sync.OnceFunc(func() { s.release(i.ID) })}
	if c := i.Config; c != nil {
		image.Entrypoint, image.Command, image.User, image.WorkDir = c.Entrypoint, c.Cmd, c.User, c.WorkingDir
	}
	return image, nil
}

// Hold implements docker.Images.
func (s *Store) Hold(id string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[id]++
	return func() { s.release(id) }
}

func (s *Store) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[id]--; s.used[id] == 0 {
		delete(s.used, id)
	}
}

// bringing is an image on its way, for everybody who waits for it.
type bringing struct {
	done chan struct{}
	err  error
}

// once brings an image for the first task that asks, while others wait. Where
// the first gives up, the next one takes over.
func (s *Store) once(ctx context.Context, key string, log *tasklog.Log, bring func(context.Context) error) error {
	for {
		s.mu.Lock()
		b, busy := s.calls[key]
		if !busy {
			b = &bringing{done: make(chan struct{})}
			s.calls[key] = b
		}
		s.mu.Unlock()
		if !busy {
			b.err = bring(ctx)
			s.mu.Lock()
			delete(s.calls, key)
			s.mu.Unlock()
			close(b.done)
			return b.err
		}
		log.Infof("[docker] Waiting for the image, which another task is fetching")
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !errors.Is(b.err, context.Canceled) && !errors.Is(b.err, context.DeadlineExceeded) {
			return b.err
		}
	}
}

// find returns the ID of an image, or "" if the daemon does not have it.
func (s *Store) find(ctx context.Context, name string) (string, error) {
	var i client.ImageInspectResult
	err := repeat(ctx, func(err error) bool { return !errdefs.IsNotFound(err) }, func() (err error) {
		i, err = s.daemon.ImageInspect(ctx, name)
		return err
	})
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fault.Unavailablef(err, "the Docker daemon does not say whether it has image %s", name)
	}
	return i.ID, nil
}

// mark gives an image the tag of a key, which notes when it was used.
func (s *Store) mark(ctx context.Context, name, tag string) error {
	err := repeat(ctx, func(err error) bool { return !errdefs.IsNotFound(err) }, func() error {
		_, err := s.daemon.ImageTag(ctx, client.ImageTagOptions{Source: name, Target: tag})
		return err
	})
	if err != nil {
		return fault.Unavailablef(err, "image %s could not be tagged", name)
	}
	return nil
}

// seconds returns how long something took, for logs.
func seconds(since time.Time) string {
	return time.Since(since).Round(100 * time.Millisecond).String()
}
