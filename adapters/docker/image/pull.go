package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// imageName is the name of an image in a registry.
type imageName struct {
	full       string // with host and tag, or digest
	short      string // as people write it: without the host of Docker Hub
	repository string // with host, without tag or digest
	host       string
	digested   bool
}

func parseName(name string) (imageName, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return imageName{}, fault.Malformedf("payload.image: %q is not the name of an image: %v", name, err)
	}
	n := imageName{full: ref.String(), short: reference.FamiliarString(ref), repository: ref.Name(), host: reference.Domain(ref)}
	if n.host == host {
		// Tags of the worker's own would be a way round the rights to archives.
		return imageName{}, fault.Malformedf("payload.image: there is no registry %s", host)
	}
	_, n.digested = ref.(reference.Digested)
	return n, nil
}

// pull brings an image from its registry, unless the daemon has it and need not
// ask. An image that the daemon had before anything was brought is not marked.
func (s *Store) pull(ctx context.Context, n imageName, log *tasklog.Log) error {
	tag, a := tagOf("name:"+n.full), s.account(n)
	there, err := s.find(ctx, n.full)
	if err != nil {
		return err
	}
	mine, closed := there == "", false
	if there != "" {
		marked, err := s.find(ctx, tag)
		if err != nil {
			return err
		}
		mine = marked != ""
		if closed, err = s.closed(ctx, there); err != nil {
			return err
		}
	}
	switch {
	case there == "" || s.config.Pull == PullAlways && !n.digested:
		err = s.persist(ctx, n, log, "pull", func() error { return s.pullOnce(ctx, n, a, log) })
		if err == nil && a != nil && !a.Public {
			err = s.close(ctx, n)
		}
	case closed || a != nil && !a.Public:
		// What the daemon has, the registry may not give to this worker any more.
		err = s.persist(ctx, n, log, "ask for", func() error { return s.ask(ctx, n, a) })
	}
	if err != nil || !mine {
		return err
	}
	return s.mark(ctx, n.full, tag)
}

// persist asks a registry for an image, and again where that may help.
func (s *Store) persist(ctx context.Context, n imageName, log *tasklog.Log, verb string, once func() error) error {
	err := repeat(ctx, func(err error) bool {
		if refused(err) {
			return false
		}
		log.Warnf("[docker] Failed to %s image %s, and will try again: %v", verb, n.full, err)
		return true
	}, once)
	switch {
	case err == nil, ctx.Err() != nil:
		return err
	case refused(err):
		return fault.Malformedf("image %s cannot be pulled: %v", n.full, err)
	default:
		return fault.Unavailablef(err, "image %s could not be pulled in %d attempts", n.full, attempts)
	}
}

const attempts = 4

// repeat does something until it succeeds, fails in a way that another attempt
// does not mend, or has failed so often. It returns the last error.
func repeat(ctx context.Context, again func(error) bool, once func() error) error {
	pause := time.Second
	for attempt := 1; ; attempt++ {
		err := once()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if attempt == attempts || !again(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause *= 3
	}
}

func (s *Store) pullOnce(ctx context.Context, n imageName, a *Registry, log *tasklog.Log) error {
	auth, err := a.encode()
	if err != nil {
		return err
	}
	start := time.Now()
	log.Infof("[docker] Pulling image %s", n.full)
	answer, err := s.daemon.ImagePull(ctx, n.full, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	p := newProgress(log, "Pulled")
	for m, err := range answer.JSONMessages(ctx) {
		if err != nil {
			return fmt.Errorf("pull image: %w", err)
		}
		if m.Error != nil {
			return m.Error
		}
		if m.Progress != nil && m.Status == "Downloading" {
			p.note(m.ID, m.Progress.Current, m.Progress.Total)
		}
	}
	log.Infof("[docker] Pulled image %s in %s", n.full, seconds(start))
	return nil
}

// refused reports whether a registry does not have an image, or does not give it
// to this worker. The daemon passes on its words.
func refused(err error) bool {
	if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) {
		return true
	}
	message := strings.ToLower(err.Error())
	for _, words := range []string{
		"not found", "manifest unknown", "name unknown", "access denied", "unauthorized", "denied:", "no basic auth",
		"no matching manifest", "does not exist", "authentication required",
	} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}
