package image

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// makeRoom removes images that were brought, the one that was used longest ago
// first, while the daemon's disk is short. Those that a task uses stay, and so
// do all that somebody else has brought.
func (s *Store) makeRoom(ctx context.Context) {
	if s.config.MinFree == 0 {
		return
	}
	short := func() bool {
		free, err := freeBytes(s.disk)
		if err != nil {
			s.log.WarnContext(ctx, "find free space on the daemon's disk", slog.Any("error", err))
		}
		return err == nil && free < s.config.MinFree
	}
	if !short() {
		return
	}
	for _, b := range s.brought(ctx) {
		if s.remove(ctx, b) && !short() {
			return
		}
	}
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // no disk is that big
}

// broughtImage is an image that this worker, or one before it, has brought.
type broughtImage struct {
	id   string
	tags []string
	used time.Time
}

// brought returns them, the one that was used longest ago first.
func (s *Store) brought(ctx context.Context) []broughtImage {
	list, err := s.daemon.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", repository)})
	if err != nil {
		s.log.WarnContext(ctx, "list images", slog.Any("error", err))
		return nil
	}
	var all []broughtImage
	for _, i := range list.Items {
		b := broughtImage{id: i.ID, tags: i.RepoTags}
		if details, err := s.daemon.ImageInspect(ctx, i.ID); err == nil {
			// The listing has the tags of the filter alone.
			b.used, b.tags = details.Metadata.LastTagTime, ours(i.ID, slices.Concat(details.RepoTags, details.RepoDigests))
		}
		if len(b.tags) > 0 {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b broughtImage) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.id, b.id)) })
	return all
}

// ours returns those names of an image that it was brought under, and the tags
// that say so: somebody else may have given it other ones, or have brought it.
func ours(id string, names []string) []string {
	var mine []string
	closed := closedTag(id)
	for _, name := range names {
		if strings.HasPrefix(name, repository) {
			continue
		}
		n, err := parseName(name)
		if tag := tagOf("name:" + n.full); err == nil && slices.Contains(names, tag) {
			mine = append(mine, name)
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, repository+":") && name != closed {
			mine = append(mine, name)
		}
	}
	if len(mine) > 0 && slices.Contains(names, closed) {
		mine = append(mine, closed)
	}
	return mine
}

// remove removes an image with all of its names, unless a task uses it. It
// reports whether it has.
func (s *Store) remove(ctx context.Context, b broughtImage) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[b.id] > 0 {
		return false
	}
	removed := false
	for _, tag := range b.tags {
		_, err := s.daemon.ImageRemove(ctx, tag, client.ImageRemoveOptions{PruneChildren: true})
		if err != nil && !errdefs.IsNotFound(err) {
			s.log.WarnContext(ctx, "remove image", slog.String("image", tag), slog.Any("error", err))
			continue
		}
		removed = true
	}
	if removed {
		s.log.InfoContext(ctx, "removed an image, since disk is short", slog.String("image", b.id), slog.Time("used", b.used))
	}
	return removed
}
