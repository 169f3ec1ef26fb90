package workermanager

import (
	"context"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// view is a pool as the service answers it. It starts no workers by itself, so
// it has no capacity to count.
func (p pool) view(id string) map[string]any {
	view := map[string]any{
		"workerPoolId": id, "providerId": p.ProviderID, "description": p.Description, "config": p.Config, "owner": p.Owner,
		"emailOnError": p.EmailOnError, "created": p.Created, "lastModified": p.LastModified,
	}
	for _, count := range []string{
		"currentCapacity", "requestedCount", "runningCount", "stoppingCount", "stoppedCount",
		"requestedCapacity", "runningCapacity", "stoppingCapacity", "stoppedCapacity",
	} {
		view[count] = 0
	}
	return view
}

func (s *Service) createPool(_ context.Context, c *api.Call) (any, error) {
	return s.putPool(c, func(known bool) error {
		if known {
			return api.Conflict("Worker pool already exists")
		}
		return nil
	})
}

func (s *Service) updatePool(_ context.Context, c *api.Call) (any, error) {
	return s.putPool(c, func(known bool) error {
		if !known {
			return api.NotFound("Worker pool does not exist")
		}
		return nil
	})
}

// putPool stores the pool of the call's input, if there being one already or
// not is fine.
func (s *Service) putPool(c *api.Call, fine func(known bool) error) (any, error) {
	var input pool
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"providerId": input.ProviderID}); err != nil {
		return nil, err
	}
	id := c.Params["workerPoolId"]
	err := s.db.Update(func(tx *store.Tx) error {
		old, known, err := pools.Get(tx, id)
		if err != nil {
			return err
		}
		if err := fine(known); err != nil {
			return err
		}
		input.LastModified = api.Now()
		input.Created = input.LastModified
		if known {
			input.Created = old.Created
		}
		return pools.Put(tx, id, input)
	})
	if err != nil {
		return nil, err
	}
	return input.view(id), nil
}

func (s *Service) pool(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["workerPoolId"]
	var p pool
	err := s.db.View(func(tx *store.Tx) (err error) {
		var known bool
		if p, known, err = pools.Get(tx, id); err == nil && !known {
			err = api.NotFound("Worker pool does not exist")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return p.view(id), nil
}

func (s *Service) listPools(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[pool]
	err = s.db.View(func(tx *store.Tx) error {
		page, err = pools.Page(tx, "", after, limit)
		return err
	})
	return api.Listing("workerPools", page, func(id string, p pool) map[string]any { return p.view(id) }), err
}
