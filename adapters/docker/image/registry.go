package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

// Registry is where the worker has an account. No task sees its credentials.
type Registry struct {
	Host     string // as in names of images, such as registry.example.com:5000/team; docker.io for Docker Hub
	Username string
	Password string
	Public   bool // whether every task may use what the account can read
}

// covers reports whether the account is for a repository.
func (r Registry) covers(repository string) bool {
	return repository == r.Host || strings.HasPrefix(repository, strings.TrimSuffix(r.Host, "/")+"/")
}

// account returns the account for an image, the one that is named most exactly,
// or nil.
func (s *Store) account(n imageName) *Registry {
	var best *Registry
	for i, r := range s.config.Registries {
		if r.covers(n.repository) && (best == nil || len(r.Host) > len(best.Host)) {
			best = &s.config.Registries[i]
		}
	}
	return best
}

const scopePrefix = "docker-worker:image:"

// authorize checks that a task may use an image which the worker has an account
// for, whether or not the daemon has it already.
func (s *Store) authorize(ctx context.Context, n imageName, authorize auth.Authorize) error {
	a := s.account(n)
	if a == nil || a.Public {
		return nil
	}
	if authorize == nil {
		return fault.Malformedf("image %s is not for every task", n.full)
	}
	sets := []task.Scopes{{scopePrefix + n.short}}
	if n.full != n.short {
		sets = append(sets, task.Scopes{scopePrefix + n.full})
	}
	return authorize(ctx, sets...)
}

// closedTag returns the tag of an image which was pulled with an account that is
// not for everybody. Whatever name a task has for it, a registry must be asked.
func closedTag(id string) string { return tagOf("closed:" + id) }

// close gives an image that tag.
func (s *Store) close(ctx context.Context, n imageName) error {
	id, err := s.find(ctx, n.full)
	if err != nil || id == "" {
		return err // what is gone again is brought again
	}
	return s.mark(ctx, id, closedTag(id))
}

// closed reports whether an image has it.
func (s *Store) closed(ctx context.Context, id string) (bool, error) {
	found, err := s.find(ctx, closedTag(id))
	return found != "", err
}

// ask asks the registry whether it still gives an image to this worker.
func (s *Store) ask(ctx context.Context, n imageName, a *Registry) error {
	auth, err := a.encode()
	if err != nil {
		return err
	}
	_, err = s.daemon.DistributionInspect(ctx, n.full, client.DistributionInspectOptions{EncodedRegistryAuth: auth})
	return err
}

// encode returns the credentials in the form of the API, or "" for no account.
func (r *Registry) encode() (string, error) {
	if r == nil {
		return "", nil
	}
	host, _, _ := strings.Cut(r.Host, "/")
	raw, err := json.Marshal(registry.AuthConfig{Username: r.Username, Password: r.Password, ServerAddress: host}) //nolint:gosec // the daemon is to have it
	if err != nil {
		return "", fmt.Errorf("encode credentials: %w", err)
	}
	return base64.URLEncoding.EncodeToString(raw), nil
}
