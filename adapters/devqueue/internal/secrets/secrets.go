// Package secrets is Taskcluster's secrets service.
package secrets

import (
	"context"
	"encoding/json"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// secret is a JSON object with a time after which it is gone.
type secret struct {
	Secret  json.RawMessage `json:"secret"`
	Expires api.Time        `json:"expires"`
}

const secrets store.Bucket[secret] = "secret" // by name

// Service is the service.
type Service struct{ db *store.DB }

// New returns the service over the secrets in db.
func New(db *store.DB) *Service { return &Service{db} }

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	const route = "/secret/<name*>"
	return api.Service{Name: "secrets", Endpoints: []api.Endpoint{
		{Name: "get", Method: "GET", Route: route, Scopes: api.Scope("secrets:get:<name>"), Serve: s.get},
		{Name: "set", Method: "PUT", Route: route, Scopes: api.Scope("secrets:set:<name>"), Input: "secrets/secret", Serve: s.set},
		{Name: "remove", Method: "DELETE", Route: route, Scopes: api.Scope("secrets:set:<name>"), Serve: s.remove},
		{Name: "list", Method: "GET", Route: "/secrets", Scopes: api.Scope("secrets:list-secrets"), Serve: s.list},
	}}
}

func (s *Service) get(_ context.Context, c *api.Call) (answer any, err error) {
	err = s.db.View(func(tx *store.Tx) error {
		found, known, err := secrets.Get(tx, c.Params["name"])
		answer = found
		if err == nil && (!known || found.Expires.Before(time.Now())) {
			err = api.NotFound("Secret not found")
		}
		return err
	})
	return answer, err
}

func (s *Service) set(_ context.Context, c *api.Call) (any, error) {
	var input secret
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	return nil, s.db.Update(func(tx *store.Tx) error { return secrets.Put(tx, c.Params["name"], input) })
}

func (s *Service) remove(_ context.Context, c *api.Call) (any, error) {
	return nil, s.db.Update(func(tx *store.Tx) error { return secrets.Delete(tx, c.Params["name"]) })
}

func (s *Service) list(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[secret]
	err = s.db.View(func(tx *store.Tx) error {
		page, err = secrets.Page(tx, "", after, limit)
		return err
	})
	return api.Listing("secrets", page, func(name string, _ secret) string { return name }), err
}
