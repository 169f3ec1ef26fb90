package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

const (
	pullAttempts  = 4
	progressEvery = 5 * time.Second
)

// imageName is the name of an image in a registry.
type imageName struct {
	full     string // with host and tag, or digest
	host     string
	digested bool
}

func parseName(name string) (imageName, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return imageName{}, fault.Malformedf("payload.image: %q is not the name of an image: %v", name, err)
	}
	_, digested := ref.(reference.Digested)
	return imageName{full: ref.String(), host: reference.Domain(ref), digested: digested}, nil
}

// pull brings an image from its registry, unless the daemon has it and need not
// ask. An image that the daemon had before anything was brought is not marked.
func (s *Store) pull(ctx context.Context, n imageName, log *tasklog.Log) error {
	tag := tagOf("name:" + n.full)
	there, err := s.has(ctx, n.full)
	if err != nil {
		return err
	}
	mine := !there
	if there {
		if mine, err = s.has(ctx, tag); err != nil {
			return err
		}
	}
	if !there || s.config.Pull == PullAlways && !n.digested {
		if err := s.pullAgain(ctx, n, log); err != nil {
			return err
		}
	}
	if !mine {
		return nil
	}
	return s.mark(ctx, n.full, tag)
}

// pullAgain repeats what may succeed the next time.
func (s *Store) pullAgain(ctx context.Context, n imageName, log *tasklog.Log) error {
	pause := time.Second
	for attempt := 1; ; attempt++ {
		start := time.Now()
		err := s.pullOnce(ctx, n, log)
		switch {
		case err == nil:
			log.Infof("[docker] Pulled image %s in %s", n.full, seconds(start))
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case refused(err):
			return fault.Malformedf("image %s cannot be pulled: %v", n.full, err)
		case attempt == pullAttempts:
			return fault.Unavailablef(err, "image %s could not be pulled in %d attempts", n.full, attempt)
		}
		log.Warnf("[docker] Pulling image %s failed, and will be repeated: %v", n.full, err)
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

func (s *Store) pullOnce(ctx context.Context, n imageName, log *tasklog.Log) error {
	auth, err := s.auth(n.host)
	if err != nil {
		return err
	}
	log.Infof("[docker] Pulling image %s", n.full)
	answer, err := s.daemon.ImagePull(ctx, n.full, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	p := progress{log: log, layers: map[string][2]int64{}, next: time.Now().Add(progressEvery)}
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
	return nil
}

// auth returns the credentials for a registry in the form of the API, or "".
func (s *Store) auth(host string) (string, error) {
	for _, r := range s.config.Registries {
		if r.Host != host {
			continue
		}
		raw, err := json.Marshal(registry.AuthConfig{Username: r.Username, Password: r.Password, ServerAddress: host}) //nolint:gosec // the daemon is to have it
		if err != nil {
			return "", fmt.Errorf("encode credentials: %w", err)
		}
		return base64.URLEncoding.EncodeToString(raw), nil
	}
	return "", nil
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

// progress tells now and then how far a download is.
type progress struct {
	log    *tasklog.Log
	layers map[string][2]int64 // bytes that are there, and of all
	next   time.Time
}

func (p *progress) note(layer string, current, total int64) {
	p.layers[layer] = [2]int64{current, total}
	if time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(progressEvery)
	var there, all int64
	for _, l := range p.layers {
		there, all = there+l[0], all+l[1]
	}
	p.log.Infof("[docker] Pulled %d of %d MB", there/1e6, all/1e6)
}

var errEmpty = errors.New("the archive holds no image")
