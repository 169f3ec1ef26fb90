package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// volumePrefix is what the names of volumes begin with, for whoever lists them.
const volumePrefix = "taskcluster-"

// volume is a volume of the daemon.
type volume struct {
	e     *Engine
	id    string
	fresh bool // nobody but root can write to it yet
}

func (v *volume) name() string { return volumePrefix + v.id }

// ID implements engine.Volume.
func (v *volume) ID() string { return v.id }

// NewVolume implements engine.Volumes. Only through a container can a volume be
// opened up for every user, so that the first one that it is in does that.
func (e *Engine) NewVolume(ctx context.Context) (engine.Volume, error) {
	v := &volume{e: e, id: strings.ToLower(rand.Text()), fresh: true}
	if _, err := e.daemon.VolumeCreate(ctx, client.VolumeCreateOptions{Name: v.name(), Labels: e.labels()}); err != nil {
		return nil, classify(err, "a volume could not be made")
	}
	return v, nil
}

// openVolume lets every user write to the volume that is at a path in a
// container which has not started.
func (s *sandbox) openVolume(ctx context.Context, at string) error {
	var archive bytes.Buffer
	t := tar.NewWriter(&archive)
	err := errors.Join(t.WriteHeader(&tar.Header{Name: path.Base(at) + "/", Typeflag: tar.TypeDir, Mode: 0o777}), t.Close())
	if err != nil {
		return fmt.Errorf("pack directory: %w", err)
	}
	if _, err := s.e.daemon.CopyToContainer(ctx, s.id, client.CopyToContainerOptions{DestinationPath: path.Dir(at), Content: &archive}); err != nil {
		return fmt.Errorf("open up volume: %w", err)
	}
	return nil
}

// OpenVolume implements engine.Volumes.
func (e *Engine) OpenVolume(ctx context.Context, id string) (engine.Volume, error) {
	v := &volume{e: e, id: id}
	if e.volumes.isClosed(id) {
		return nil, &fs.PathError{Op: "open volume", Path: id, Err: fs.ErrNotExist}
	}
	r, err := e.daemon.VolumeInspect(ctx, v.name(), client.VolumeInspectOptions{})
	if err == nil && r.Volume.Labels[labelInstance] == e.config.Instance {
		return v, nil
	}
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		err = fs.ErrNotExist
	}
	return nil, &fs.PathError{Op: "open volume", Path: id, Err: err}
}

// KeepVolumes implements engine.Volumes. A volume may be in a container that is
// not removed yet.
func (e *Engine) KeepVolumes(ctx context.Context, ids []string) error {
	all, err := e.daemon.VolumeList(ctx, client.VolumeListOptions{Filters: e.mine()})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, found := range all.Items {
		if id, ok := strings.CutPrefix(found.Name, volumePrefix); ok && !slices.Contains(ids, id) {
			if err := e.removeVolume(ctx, found.Name); err != nil {
				e.log.WarnContext(ctx, "not removed yet", slog.String("volume", found.Name), slog.Any("error", err))
				e.trash.volume(found.Name)
			}
		}
	}
	return nil
}

// Close implements engine.Volume. A container that is being removed may hold the
// volume for a moment, so that the removal is left to the background.
func (v *volume) Close() error {
	if v.e.volumes.close(v.id) {
		v.e.trash.volume(v.name())
	}
	return nil
}

// volumes remembers those that were closed, which may not be gone yet.
type volumes struct {
	mu     sync.Mutex
	closed map[string]bool // by ID
}

// close reports whether the volume had not been closed before.
func (v *volumes) close(id string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed[id] {
		return false
	}
	if v.closed == nil {
		v.closed = map[string]bool{}
	}
	v.closed[id] = true
	return true
}

func (v *volumes) isClosed(id string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closed[id]
}

func (e *Engine) removeVolume(ctx context.Context, name string) error {
	if _, err := e.daemon.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove volume: %w", err)
	}
	return nil
}
