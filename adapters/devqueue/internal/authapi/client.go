package authapi

import (
	"context"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// describe is a client as the service answers it.
func (s *Service) describe(id string, c client) (map[string]any, error) {
	expanded, err := s.authority.Expand(append(append(task.Scopes{}, c.Scopes...), "assume:client-id:"+id))
	return map[string]any{
		"clientId": id, "expires": api.Time{Time: c.Expires}, "description": c.Description,
		"deleteOnExpiration": c.DeleteOnExpiration, "disabled": c.Disabled,
		"created": c.Created, "lastModified": c.LastModified, "lastDateUsed": c.LastModified, "lastRotated": c.LastModified,
		"scopes": append(task.Scopes{}, c.Scopes...), "expandedScopes": expanded,
	}, err
}

// find returns a client of the configuration or of the database.
func (s *Service) find(tx *store.Tx, id string) (client, error) {
	if fixed, ok := s.directory.clients[id]; ok {
		return client{Client: fixed, Description: "configured"}, nil
	}
	c, known, err := clients.Get(tx, id)
	if err == nil && !known {
		err = api.NotFound("Client with clientId '%s' not found", id)
	}
	return c, err
}

func (s *Service) client(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["clientId"]
	var found client
	err := s.directory.db.View(func(tx *store.Tx) (err error) {
		found, err = s.find(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.describe(id, found)
}

func (s *Service) listClients(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[client]
	err = s.directory.db.View(func(tx *store.Tx) error {
		page, err = clients.Page(tx, c.Query.Get("prefix"), after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	described := store.Page[map[string]any]{Keys: page.Keys, Next: page.Next}
	for i, id := range page.Keys {
		d, err := s.describe(id, page.Values[i])
		if err != nil {
			return nil, err
		}
		described.Values = append(described.Values, d)
	}
	return api.Listing("clients", described, func(_ string, d map[string]any) map[string]any { return d }), nil
}

func (s *Service) createClient(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		Expires            api.Time    `json:"expires"`
		Description        string      `json:"description"`
		DeleteOnExpiration bool        `json:"deleteOnExpiration"`
		Scopes             task.Scopes `json:"scopes"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"scopes": append([]string{}, input.Scopes...)}); err != nil {
		return nil, err
	}
	id := c.Params["clientId"]
	token, err := auth.Token()
	if err != nil {
		return nil, err
	}
	now := api.Now()
	created := client{
		Client:      auth.Client{AccessToken: token, Scopes: input.Scopes, Expires: input.Expires.Time},
		Description: input.Description, DeleteOnExpiration: input.DeleteOnExpiration, Created: now, LastModified: now,
	}
	err = s.directory.db.Update(func(tx *store.Tx) error {
		old, err := s.find(tx, id)
		if err != nil {
			return clients.Put(tx, id, created)
		}
		// Repeating the call right after the first one is fine.
		same := old.Description == created.Description && old.Expires.Equal(created.Expires) &&
			strings.Join(old.Scopes, "\n") == strings.Join(created.Scopes, "\n")
		if !same || now.Sub(old.Created.Time) > 15*time.Minute {
			return api.Conflict("client with same clientId already exists")
		}
		created = old
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer, err := s.describe(id, created)
	answer["accessToken"] = created.AccessToken
	return answer, err
}

func (s *Service) deleteClient(_ context.Context, c *api.Call) (any, error) {
	return api.NoContent(), s.directory.db.Update(func(tx *store.Tx) error { return clients.Delete(tx, c.Params["clientId"]) })
}

// describeRole is a role as the service answers it.
func (s *Service) describeRole(id string, r role) (map[string]any, error) {
	expanded, err := s.authority.Expand(task.Scopes{"assume:" + id})
	return map[string]any{
		"roleId": id, "scopes": append(task.Scopes{}, r.Scopes...), "description": r.Description,
		"created": r.Created, "lastModified": r.LastModified, "expandedScopes": expanded,
	}, err
}

func (s *Service) role(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["roleId"]
	var found role
	err := s.directory.db.View(func(tx *store.Tx) (err error) {
		var known bool
		if found, known, err = roles.Get(tx, id); err != nil || known {
			return err
		}
		scopes, known := s.directory.roles[id]
		if !known {
			return api.NotFound("Role not found")
		}
		found = role{Scopes: scopes, Description: "configured"}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.describeRole(id, found)
}

func (s *Service) createRole(_ context.Context, c *api.Call) (any, error) {
	var r role
	if err := c.Decode(&r); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"scopes": append([]string{}, r.Scopes...)}); err != nil {
		return nil, err
	}
	id := c.Params["roleId"]
	r.Created, r.LastModified = api.Now(), api.Now()
	err := s.directory.db.Update(func(tx *store.Tx) error {
		_, known, err := roles.Get(tx, id)
		if err != nil {
			return err
		}
		if _, fixed := s.directory.roles[id]; known || fixed {
			return api.Conflict("Role already exists")
		}
		return roles.Put(tx, id, r)
	})
	if err != nil {
		return nil, err
	}
	s.directory.cached.Store(nil)
	return s.describeRole(id, r)
}

func (s *Service) deleteRole(_ context.Context, c *api.Call) (any, error) {
	err := s.directory.db.Update(func(tx *store.Tx) error { return roles.Delete(tx, c.Params["roleId"]) })
	s.directory.cached.Store(nil)
	return api.NoContent(), err
}
