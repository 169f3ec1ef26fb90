// Package purgecache is Taskcluster's purge-cache service: requests to workers
// to forget their caches of a name.
package purgecache

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// life is how long a request stands.
const life = 24 * time.Hour

// request asks for the caches of before a time to be purged.
type request struct {
	Before api.Time `json:"before"`
}

const requests store.Bucket[request] = "purge-cache" // by "<worker pool>\x00<cache name>"

// Service is the service.
type Service struct{ db *store.DB }

// New returns the service over the requests in db.
func New(db *store.DB) *Service { return &Service{db} }

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	const route = "/purge-cache/<workerPoolId*>"
	return api.Service{
		Name: "purge-cache",
		Endpoints: []api.Endpoint{
			{Name: "allPurgeRequests", Method: "GET", Route: "/purge-cache/list", Scopes: api.Scope("purge-cache:all-purge-requests"), Serve: s.all},
			{Name: "purgeRequests", Method: "GET", Route: route, Scopes: api.Scope("purge-cache:purge-requests::<workerPoolId>"), Serve: s.of},
			{Name: "purgeCache", Method: "POST", Route: route, Scopes: api.Scope("purge-cache:<workerPoolId>:<cacheName>"), Input: "purge-cache/request", Serve: s.purge},
		},
		Params: map[string]*regexp.Regexp{"workerPoolId": regexp.MustCompile(`^[A-Za-z0-9_-]{1,38}/[A-Za-z0-9_-]{1,38}$`)},
	}
}

func (s *Service) purge(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		CacheName string `json:"cacheName"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"cacheName": input.CacheName}); err != nil {
		return nil, err
	}
	return api.NoContent(), s.db.Update(func(tx *store.Tx) error {
		return requests.Put(tx, c.Params["workerPoolId"]+"\x00"+input.CacheName, request{api.Now()})
	})
}

// view is a request as the service answers it.
func view(key string, r request) map[string]any {
	pool, cache, _ := strings.Cut(key, "\x00")
	provisioner, workerType, _ := strings.Cut(pool, "/")
	return map[string]any{"provisionerId": provisioner, "workerType": workerType, "cacheName": cache, "before": r.Before}
}

func (s *Service) all(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[request]
	err = s.db.View(func(tx *store.Tx) error {
		page, err = requests.Page(tx, "", after, limit)
		return err
	})
	return api.Listing("requests", page, view), err
}

func (s *Service) of(_ context.Context, c *api.Call) (any, error) {
	since := time.Now().Add(-life)
	if text := c.Query.Get("since"); text != "" {
		asked, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, api.InvalidArguments("Query-string parameter 'since' given as %q is no date", text)
		}
		if asked.After(since) {
			since = asked
		}
	}
	open := []map[string]any{}
	err := s.db.View(func(tx *store.Tx) error {
		return requests.Each(tx, c.Params["workerPoolId"]+"\x00", "", func(key string, r request) (bool, error) {
			if !r.Before.Before(since) {
				open = append(open, view(key, r))
			}
			return true, nil
		})
	})
	return map[string]any{"requests": open}, err
}
