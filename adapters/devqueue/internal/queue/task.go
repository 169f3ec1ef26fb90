package queue

import (
	"context"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

func (q *Queue) createTask(_ context.Context, c *api.Call) (any, error) {
	taskID := c.Params["taskId"]
	d := blank()
	if err := c.Decode(&d); err != nil {
		return nil, err
	}
	if err := d.name(); err != nil {
		return nil, err
	}
	err := c.Authorize(api.Params{
		"scopes": d.Scopes, "routes": d.Routes, "projectId": d.ProjectID, "schedulerId": d.SchedulerID,
		"priorities": allowing(d.Priority), "provisionerId": d.ProvisionerID, "workerType": d.WorkerType,
	})
	if err != nil {
		return nil, err
	}
	now := api.Now().Time
	if err := d.complete(taskID, now); err != nil {
		return nil, err
	}
	t := &entry{taskID, d, lifecycle.New(d.Retries)}
	err = q.change(func(tx *change) error {
		existing, known, err := definitions.Get(tx.Tx, taskID)
		if err != nil {
			return err
		}
		if known {
			same, err := existing.equal(&d)
			if err != nil {
				return err
			}
			if !same {
				return api.Conflict("taskId `%s` already used by another task.\nThis could be the result of faulty idempotency!", taskID)
			}
			t, err = load(tx.Tx, taskID)
			return err
		}
		return tx.create(t, now)
	})
	if err != nil {
		return nil, err
	}
	return t.answer(), nil
}

// create stores a task that did not exist, and schedules it unless it has to
// wait for others.
func (c *change) create(t *entry, now time.Time) error {
	d := &t.definition
	g, known, err := groups.Get(c.Tx, d.TaskGroupID)
	if err != nil {
		return err
	}
	if known && g.SchedulerID != d.SchedulerID {
		return api.Conflict("Task group `%s` contains tasks with a schedulerId other\nthan `%s`. All tasks in the same task-group must have\nthe same schedulerId.", d.TaskGroupID, d.SchedulerID)
	}
	if !known || g.Expires.Before(d.Expires.Time) {
		if err := groups.Put(c.Tx, d.TaskGroupID, group{d.SchedulerID, d.Expires}); err != nil {
			return err
		}
	}
	if err := members.Put(c.Tx, d.TaskGroupID+"/"+t.id, struct{}{}); err != nil {
		return err
	}
	if err := definitions.Put(c.Tx, t.id, *d); err != nil {
		return err
	}
	blocked, err := c.depend(t)
	if err != nil {
		return err
	}
	if !blocked {
		t.status, _ = t.status.Schedule(now)
	}
	return c.put(t)
}

func (q *Queue) task(_ context.Context, c *api.Call) (any, error) {
	t, err := q.view(c.Params["taskId"])
	if err != nil {
		return nil, err
	}
	return t.definition, nil
}

func (q *Queue) status(_ context.Context, c *api.Call) (any, error) {
	t, err := q.view(c.Params["taskId"])
	if err != nil {
		return nil, err
	}
	return t.answer(), nil
}

func (q *Queue) listTaskGroup(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["taskGroupId"]
	return q.list(c, id+"/", func(tx *store.Tx, after string, limit int) (store.Page[struct{}], error) {
		if _, known, err := groups.Get(tx, id); err != nil || !known {
			return store.Page[struct{}]{}, orNotFound(err, "No task-group with taskGroupId: `%s`", id)
		}
		return members.Page(tx, id+"/", after, limit)
	}, map[string]any{"taskGroupId": id})
}

func (q *Queue) listDependentTasks(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["taskId"]
	return q.list(c, id+"/", func(tx *store.Tx, after string, limit int) (store.Page[struct{}], error) {
		if _, err := load(tx, id); err != nil {
			return store.Page[struct{}]{}, err
		}
		page, err := dependents.Page(tx, id+"/", after, limit)
		return store.Page[struct{}]{Keys: page.Keys, Values: make([]struct{}, len(page.Keys)), Next: page.Next}, err
	}, map[string]any{"taskId": id})
}

// orNotFound returns err, or an api.NotFound if it is nil.
func orNotFound(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return api.NotFound(format, args...)
}

// list answers with the tasks whose ids follow prefix in the keys of a page.
func (q *Queue) list(
	c *api.Call, prefix string,
	page func(tx *store.Tx, after string, limit int) (store.Page[struct{}], error), more map[string]any,
) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	err = q.DB.View(func(tx *store.Tx) error {
		found, err := page(tx, after, limit)
		if err != nil {
			return err
		}
		tasks := store.Page[member]{Keys: found.Keys, Next: found.Next}
		for _, key := range found.Keys {
			t, err := load(tx, key[len(prefix):])
			if err != nil {
				return err
			}
			tasks.Values = append(tasks.Values, member{t.view(), t.definition})
		}
		answer = api.Listing("tasks", tasks, func(_ string, m member) member { return m })
		return nil
	})
	for name, value := range more {
		if answer != nil {
			answer[name] = value
		}
	}
	return answer, err
}

// alter applies a verb to a task that the caller may act upon before its
// deadline, and answers with what has become of it.
func (q *Queue) alter(c *api.Call, verb string, fn func(tx *change, t *entry, now time.Time) error) (any, error) {
	taskID := c.Params["taskId"]
	t, err := q.view(taskID)
	if err != nil {
		return nil, err
	}
	d := &t.definition
	err = c.Authorize(api.Params{"schedulerId": d.SchedulerID, "taskGroupId": d.TaskGroupID, "projectId": d.ProjectID})
	if err != nil {
		return nil, err
	}
	err = q.change(func(tx *change) error {
		if t, err = load(tx.Tx, taskID); err != nil {
			return err
		}
		now := api.Now().Time
		if t.definition.Deadline.Before(now) {
			return api.Conflict("Task `%s` can't be %s past its deadline of %s.", taskID, verb, api.Date(t.definition.Deadline.Time))
		}
		return fn(tx, t, now)
	})
	if err != nil {
		return nil, err
	}
	return t.answer(), nil
}

func (q *Queue) scheduleTask(_ context.Context, c *api.Call) (any, error) {
	return q.alter(c, "scheduled", func(tx *change, t *entry, now time.Time) error {
		var changed bool
		if t.status, changed = t.status.Schedule(now); !changed {
			return nil
		}
		return tx.put(t)
	})
}

func (q *Queue) rerunTask(_ context.Context, c *api.Call) (any, error) {
	return q.alter(c, "rescheduled", func(tx *change, t *entry, now time.Time) error {
		var changed bool
		if t.status, changed = t.status.Again(t.definition.Retries, now); changed {
			return tx.put(t)
		}
		if t.status.Resolved() {
			return api.Conflict("Maximum number of runs reached (%d).", lifecycle.MaxRuns)
		}
		return nil
	})
}

func (q *Queue) cancelTask(_ context.Context, c *api.Call) (any, error) {
	return q.alter(c, "canceled", func(tx *change, t *entry, now time.Time) error {
		var changed bool
		if t.status, changed = t.status.Cancel(lifecycle.Canceled, now); !changed {
			return nil
		}
		return q.settle(tx, t, now)
	})
}
