package queue

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// How long the queue remembers workers and task queues, and how long a sight
// of a worker stands before it is written down again.
const (
	workerLife    = 24 * time.Hour
	taskQueueLife = 5 * 24 * time.Hour
	sightLife     = 30 * time.Second
)

// worker is what the queue knows of a worker.
type worker struct {
	QuarantineUntil api.Time     `json:"quarantineUntil"`
	Expires         api.Time     `json:"expires"`
	FirstClaim      api.Time     `json:"firstClaim"`
	LastDateActive  api.Time     `json:"lastDateActive"`
	RecentTasks     []recentTask `json:"recentTasks"`
}

type recentTask struct {
	TaskID string `json:"taskId"`
	RunID  int    `json:"runId"`
}

// taskQueue is what the queue knows of a task queue.
type taskQueue struct {
	TaskQueueID    string   `json:"taskQueueId"`
	ProvisionerID  string   `json:"provisionerId"`
	WorkerType     string   `json:"workerType"`
	Expires        api.Time `json:"expires"`
	LastDateActive api.Time `json:"lastDateActive"`
	Description    string   `json:"description"`
	Stability      string   `json:"stability"`
}

// seen says until when the sight of a worker need not be written down again.
type seen struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (s *seen) fresh(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until[key]) {
		return true
	}
	s.until[key] = now.Add(sightLife)
	return false
}

func workerKey(queue string, w lifecycle.Worker) string { return queue + "/" + w.Group + "/" + w.ID }

// meet notes that a worker is alive, and reports whether it is quarantined.
func (q *Queue) meet(queue string, who lifecycle.Worker) (quarantined bool, err error) {
	now := api.Now()
	key := workerKey(queue, who)
	if q.seen.fresh(key, now.Time) {
		err = q.DB.View(func(tx *store.Tx) error {
			w, _, err := workers.Get(tx, key)
			quarantined = w.QuarantineUntil.After(now.Time)
			return err
		})
		return quarantined, err
	}
	err = q.DB.Update(func(tx *store.Tx) error {
		w, err := sight(tx, key, now)
		if err != nil {
			return err
		}
		quarantined = w.QuarantineUntil.After(now.Time)
		return sightQueue(tx, queue, now)
	})
	return quarantined, err
}

// sight writes down that a worker was seen, and returns what is known of it.
func sight(tx *store.Tx, key string, now api.Time) (worker, error) {
	w, known, err := workers.Get(tx, key)
	if err != nil {
		return w, err
	}
	if !known {
		w = worker{FirstClaim: now, QuarantineUntil: api.Time{Time: now.AddDate(-10, 0, 0)}, RecentTasks: []recentTask{}}
	}
	w.LastDateActive = now
	if life := now.Add(workerLife); life.After(w.Expires.Time) {
		w.Expires.Time = life
	}
	return w, workers.Put(tx, key, w)
}

func sightQueue(tx *store.Tx, id string, now api.Time) error {
	known, ok, err := taskQueues.Get(tx, id)
	if err != nil {
		return err
	}
	if !ok {
		known = taskQueue{TaskQueueID: id, Stability: "experimental"}
		known.ProvisionerID, known.WorkerType, _ = strings.Cut(id, "/")
	}
	known.LastDateActive = now
	known.Expires.Time = now.Add(taskQueueLife)
	return taskQueues.Put(tx, id, known)
}

func (q *Queue) pendingTasks(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["taskQueueId"]
	provisioner, workerType, _ := strings.Cut(id, "/")
	return map[string]any{"taskQueueId": id, "provisionerId": provisioner, "workerType": workerType, "pendingTasks": q.pending.count(id)}, nil
}

func (q *Queue) listTaskQueues(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[taskQueue]
	err = q.DB.View(func(tx *store.Tx) error {
		page, err = taskQueues.Page(tx, "", after, limit)
		return err
	})
	return api.Listing("taskQueues", page, func(_ string, known taskQueue) map[string]any {
		return map[string]any{
			"taskQueueId": known.TaskQueueID, "expires": known.Expires, "lastDateActive": known.LastDateActive,
			"description": known.Description, "stability": known.Stability,
		}
	}), err
}

func (q *Queue) getTaskQueue(_ context.Context, c *api.Call) (any, error) {
	id := c.Params["taskQueueId"]
	var known taskQueue
	err := q.DB.View(func(tx *store.Tx) (err error) {
		var ok bool
		if known, ok, err = taskQueues.Get(tx, id); err != nil || !ok {
			return orNotFound(err, "Task queue with `%s` not found. Are you sure it was created?", id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"taskQueueId": id, "expires": known.Expires, "lastDateActive": known.LastDateActive,
		"description": known.Description, "stability": known.Stability,
	}, nil
}

// named returns the task queue and the worker that a route names.
func named(c *api.Call) (string, lifecycle.Worker) {
	return c.Params["provisionerId"] + "/" + c.Params["workerType"],
		lifecycle.Worker{Group: c.Params["workerGroup"], ID: c.Params["workerId"]}
}

// describe is a worker as the queue answers it.
func describe(c *api.Call, w worker) map[string]any {
	queue, who := named(c)
	answer := map[string]any{
		"provisionerId": c.Params["provisionerId"], "workerType": c.Params["workerType"],
		"workerGroup": who.Group, "workerId": who.ID, "taskQueueId": queue,
		"recentTasks": append([]recentTask{}, w.RecentTasks...), "expires": w.Expires, "firstClaim": w.FirstClaim,
		"lastDateActive": w.LastDateActive, "quarantineUntil": w.QuarantineUntil, "actions": []string{},
	}
	return answer
}

func (q *Queue) listWorkers(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	queue, _ := named(c)
	now := time.Now()
	filter := c.Query.Get("quarantined")
	var page store.Page[worker]
	err = q.DB.View(func(tx *store.Tx) error {
		page, err = workers.Page(tx, queue+"/", after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown := store.Page[worker]{Next: page.Next}
	for i, key := range page.Keys {
		quarantined := page.Values[i].QuarantineUntil.After(now)
		if (quarantined || page.Values[i].Expires.After(now)) && (filter == "" || (filter == "true") == quarantined) {
			shown.Keys = append(shown.Keys, key)
			shown.Values = append(shown.Values, page.Values[i])
		}
	}
	return api.Listing("workers", shown, func(key string, w worker) map[string]any {
		workerGroup, id, _ := strings.Cut(strings.TrimPrefix(key, queue+"/"), "/")
		entry := map[string]any{"workerGroup": workerGroup, "workerId": id, "firstClaim": w.FirstClaim, "lastDateActive": w.LastDateActive}
		if n := len(w.RecentTasks); n > 0 {
			entry["latestTask"] = w.RecentTasks[n-1]
		}
		if w.QuarantineUntil.After(now) {
			entry["quarantineUntil"] = w.QuarantineUntil
		}
		return entry
	}), nil
}

func (q *Queue) getWorker(_ context.Context, c *api.Call) (any, error) {
	queue, who := named(c)
	var w worker
	err := q.DB.View(func(tx *store.Tx) (err error) {
		var known bool
		if w, known, err = workers.Get(tx, workerKey(queue, who)); err != nil || !known {
			return orNotFound(err, "Worker `%s` not found. Are you sure it was created?", workerKey(queue, who))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return describe(c, w), nil
}

func (q *Queue) quarantineWorker(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		QuarantineUntil api.Time `json:"quarantineUntil"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	queue, who := named(c)
	key := workerKey(queue, who)
	var w worker
	err := q.DB.Update(func(tx *store.Tx) (err error) {
		var known bool
		if w, known, err = workers.Get(tx, key); err != nil || !known {
			return orNotFound(err, "Worker `%s` not found.", key)
		}
		w.QuarantineUntil = input.QuarantineUntil
		if life := time.Now().Add(workerLife); life.After(w.Expires.Time) {
			w.Expires.Time = life
		}
		return workers.Put(tx, key, w)
	})
	if err != nil {
		return nil, err
	}
	return describe(c, w), nil
}

func (q *Queue) declareWorker(_ context.Context, c *api.Call) (any, error) {
	var input map[string]api.Time
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	properties := []string{}
	for name := range input {
		properties = append(properties, name)
	}
	if err := c.Authorize(api.Params{"properties": properties}); err != nil {
		return nil, err
	}
	queue, who := named(c)
	var w worker
	err := q.DB.Update(func(tx *store.Tx) (err error) {
		now := api.Now()
		if w, err = sight(tx, workerKey(queue, who), now); err != nil {
			return err
		}
		if expires := input["expires"]; expires.After(w.Expires.Time) {
			w.Expires = expires
		}
		if err := workers.Put(tx, workerKey(queue, who), w); err != nil {
			return err
		}
		return sightQueue(tx, queue, now)
	})
	if err != nil {
		return nil, err
	}
	return describe(c, w), nil
}
