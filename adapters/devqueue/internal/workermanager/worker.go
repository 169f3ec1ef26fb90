package workermanager

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// describe is a worker as the service answers it.
func describe(c *api.Call, w worker) map[string]any {
	return map[string]any{
		"workerPoolId": c.Params["workerPoolId"], "workerGroup": c.Params["workerGroup"], "workerId": c.Params["workerId"],
		"providerId": w.ProviderID, "created": w.Created, "expires": w.Expires, "state": w.State, "capacity": w.Capacity,
		"lastModified": w.LastModified, "lastChecked": w.Created,
	}
}

func workerKey(c *api.Call) string {
	return c.Params["workerPoolId"] + "/" + c.Params["workerGroup"] + "/" + c.Params["workerId"]
}

func (s *Service) createWorker(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		Expires  api.Time `json:"expires"`
		Capacity int      `json:"capacity"`
		Info     struct {
			StaticSecret string `json:"staticSecret"`
		} `json:"providerInfo"`
	}
	input.Capacity = 1
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	var w worker
	err := s.db.Update(func(tx *store.Tx) error {
		p, known, err := pools.Get(tx, c.Params["workerPoolId"])
		if err != nil {
			return err
		}
		if !known {
			return api.NotFound("Worker pool %s does not exist", c.Params["workerPoolId"])
		}
		state := running
		switch {
		case p.ProviderID == amazon:
			state = requested
		case input.Info.StaticSecret == "":
			return api.InputError("no worker staticSecret provided")
		}
		if w, known, err = workers.Get(tx, workerKey(c)); err != nil {
			return err
		}
		if known {
			if w.StaticSecret != input.Info.StaticSecret {
				return api.Conflict("worker already exists")
			}
			return nil
		}
		now := api.Now()
		w = worker{
			ProviderID: p.ProviderID, StaticSecret: input.Info.StaticSecret, State: state, Capacity: input.Capacity,
			Created: now, Expires: input.Expires, LastModified: now,
		}
		return workers.Put(tx, workerKey(c), w)
	})
	if err != nil {
		return nil, err
	}
	return describe(c, w), nil
}

func (s *Service) worker(_ context.Context, c *api.Call) (any, error) {
	var w worker
	err := s.db.View(func(tx *store.Tx) (err error) {
		w, err = find(tx, c.Params["workerPoolId"], c.Params["workerGroup"], c.Params["workerId"])
		return err
	})
	if err != nil {
		return nil, err
	}
	return describe(c, w), nil
}

func (s *Service) removeWorker(_ context.Context, c *api.Call) (any, error) {
	return api.NoContent(), s.db.Update(func(tx *store.Tx) error {
		w, err := find(tx, c.Params["workerPoolId"], c.Params["workerGroup"], c.Params["workerId"])
		if err != nil {
			return err
		}
		w.State, w.LastModified = stopped, api.Now()
		return workers.Put(tx, workerKey(c), w)
	})
}

func (s *Service) shouldTerminate(_ context.Context, c *api.Call) (any, error) {
	var w worker
	err := s.db.View(func(tx *store.Tx) (err error) {
		w, err = find(tx, c.Params["workerPoolId"], c.Params["workerGroup"], c.Params["workerId"])
		return err
	})
	if err != nil {
		return nil, err
	}
	if w.State != running {
		return map[string]any{"terminate": true, "reason": "worker is " + w.State}, nil
	}
	return map[string]any{"terminate": false, "reason": "needed"}, nil
}

func (s *Service) reportError(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		WorkerGroup string         `json:"workerGroup"`
		WorkerID    string         `json:"workerId"`
		Kind        string         `json:"kind"`
		Title       string         `json:"title"`
		Description string         `json:"description"`
		Extra       map[string]any `json:"extra"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"workerGroup": input.WorkerGroup, "workerId": input.WorkerID}); err != nil {
		return nil, err
	}
	input.Extra["workerGroup"], input.Extra["workerId"] = input.WorkerGroup, input.WorkerID
	now := api.Date(time.Now())
	fault := map[string]any{
		"workerPoolId": c.Params["workerPoolId"], "errorId": rand.Text(), "reported": now, "kind": input.Kind,
		"title": input.Title, "description": input.Description, "extra": input.Extra,
	}
	return fault, s.db.Update(func(tx *store.Tx) error {
		return faults.Put(tx, c.Params["workerPoolId"]+"/"+now+"/"+rand.Text(), fault)
	})
}

func (s *Service) listErrors(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[map[string]any]
	err = s.db.View(func(tx *store.Tx) error {
		page, err = faults.Page(tx, c.Params["workerPoolId"]+"/", after, limit)
		return err
	})
	return api.Listing("workerPoolErrors", page, func(_ string, fault map[string]any) map[string]any { return fault }), err
}
