package taskcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
)

// Index finds the tasks that were indexed under a namespace.
type Index struct{ c *Client }

// NewIndex returns the index of c's deployment.
func NewIndex(c *Client) *Index { return &Index{c} }

// FindTask returns the task that is indexed at path, such as
// "project.tree.v1.5.latest". It retries transient errors.
//
// Errors: [ErrNotFound]; and as of any call.
func (x *Index) FindTask(ctx context.Context, creds task.Credentials, path string) (task.ID, error) {
	var answer struct {
		TaskID task.ID `json:"taskId"`
	}
	err := x.c.repeat(ctx, call{
		service: "index", name: "findTask", method: http.MethodGet,
		path: segments("/task/", path), creds: creds, out: &answer,
	})
	return answer.TaskID, missing(err)
}

// PurgeCache knows which caches were asked to be purged.
type PurgeCache struct{ c *Client }

var _ cache.Purges = (*PurgeCache)(nil)

// NewPurgeCache returns the purge-cache service of c's deployment.
func NewPurgeCache(c *Client) *PurgeCache { return &PurgeCache{c} }

// PurgeRequests implements cache.Purges.
func (p *PurgeCache) PurgeRequests(ctx context.Context, since time.Time) ([]cache.Purge, error) {
	var answer struct {
		Requests []struct {
			CacheName string    `json:"cacheName"`
			Before    time.Time `json:"before"`
		} `json:"requests"`
	}
	r := call{
		service: "purge-cache", name: "purgeRequests", method: http.MethodGet,
		path: segments("/purge-cache/", p.c.cfg.TaskQueueID), creds: p.c.credentials(), out: &answer,
	}
	if !since.IsZero() {
		r.query = url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}
	}
	err := p.c.repeat(ctx, r)
	requests := make([]cache.Purge, 0, len(answer.Requests))
	for _, r := range answer.Requests {
		requests = append(requests, cache.Purge{Name: r.CacheName, Before: r.Before})
	}
	return requests, err
}

// Secrets holds the secrets of a deployment.
type Secrets struct{ c *Client }

// NewSecrets returns the secrets of c's deployment.
func NewSecrets(c *Client) *Secrets { return &Secrets{c} }

// Get returns the secret of a name, such as "worker-pool:prov/type", which is a
// JSON object. It retries transient errors.
//
// Errors: [ErrNotFound]; and as of any call.
func (s *Secrets) Get(ctx context.Context, name string) (json.RawMessage, error) {
	var answer struct {
		Secret json.RawMessage `json:"secret"`
	}
	err := s.c.repeat(ctx, call{
		service: "secrets", name: "get", method: http.MethodGet,
		path: segments("/secret/", name), creds: s.c.credentials(), out: &answer,
	})
	return answer.Secret, missing(err)
}

// missing returns err as ErrNotFound if it says so.
func missing(err error) error {
	if status(err) == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
