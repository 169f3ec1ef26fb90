// Package queue is Taskcluster's queue service: tasks and their runs, claims,
// artifacts and the workers it has seen.
//
// The database holds all of it. Memory holds what would be slow to find there:
// hints to pending tasks and the times at which claims and deadlines end. Both
// are advice, checked against the database before anything is done, and built
// anew from it at the start.
package queue

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/object"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/schedule"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// The buckets of the queue. Keys are task ids unless stated otherwise.
const (
	definitions store.Bucket[Definition]       = "task"
	statuses    store.Bucket[lifecycle.Status] = "status"
	unresolved  store.Bucket[struct{}]         = "unresolved"
	groups      store.Bucket[group]            = "group"
	members     store.Bucket[struct{}]         = "member"     // <task group>/<task>
	dependents  store.Bucket[dependency]       = "dependent"  // <required task>/<dependent task>
	artifacts   store.Bucket[artifact]         = "artifact"   // <task>/<run, four digits>/<name>
	workers     store.Bucket[worker]           = "worker"     // <task queue>/<worker group>/<worker>
	taskQueues  store.Bucket[taskQueue]        = "task-queue" // <task queue>
)

// group is what is common to the tasks of a task group.
type group struct {
	SchedulerID string   `json:"schedulerId"`
	Expires     api.Time `json:"expires"`
}

// dependency is one task waiting for another.
type dependency struct {
	Requires  string `json:"requires"`
	Satisfied bool   `json:"satisfied"`
}

// Config is what a queue needs.
type Config struct {
	DB        *store.DB
	Authority *auth.Authority
	Contents  *content.Store
	Objects   *object.Service
	// Completed is called when a task is completed, in the same transaction.
	Completed    func(*store.Tx, string, Definition) error
	ClaimTimeout time.Duration // lease of a claim
	PollTimeout  time.Duration // how long claimWork waits for a task
	Log          *slog.Logger
}

// Queue is the service.
type Queue struct {
	Config
	pending *pending
	alarms  *schedule.Schedule[alarm]
	// mu makes changes of the database and of what memory knows of it one step.
	mu   sync.Mutex
	seen seen
}

// alarm is a time at which a task needs attention.
type alarm struct {
	taskID   string
	deadline bool // or else the end of a claim
}

// New returns the queue that is in the database.
func New(c Config) (*Queue, error) {
	q := &Queue{Config: c, pending: newPending(), alarms: schedule.New[alarm](), seen: seen{until: map[string]time.Time{}}}
	err := c.DB.View(func(tx *store.Tx) error {
		return unresolved.Each(tx, "", "", func(taskID string, _ struct{}) (bool, error) {
			t, err := load(tx, taskID)
			if err == nil {
				q.remember(t)
			}
			return true, err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("restore the queue: %w", err)
	}
	return q, nil
}

// Run resolves claims and deadlines whose time has come, until ctx is done.
func (q *Queue) Run(ctx context.Context) {
	q.alarms.Run(ctx, func(a alarm) {
		if err := q.expire(a); err != nil {
			q.Log.ErrorContext(ctx, "resolve what has expired", slog.String("task", a.taskID), slog.String("error", err.Error()))
		}
	})
}

// entry is a task as it is in the database.
type entry struct {
	id         string
	definition Definition
	status     lifecycle.Status
}

// load returns a task, or an api.NotFound.
func load(tx *store.Tx, taskID string) (*entry, error) {
	d, ok, err := definitions.Get(tx, taskID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, api.NotFound("`%s` does not correspond to a task that exists.\nAre you sure this task has already been submitted?", taskID)
	}
	s, _, err := statuses.Get(tx, taskID)
	if err != nil {
		return nil, err
	}
	return &entry{taskID, d, s}, nil
}

// view returns a task outside of a change.
func (q *Queue) view(taskID string) (t *entry, err error) {
	err = q.DB.View(func(tx *store.Tx) error {
		t, err = load(tx, taskID)
		return err
	})
	return t, err
}

// change is one step of the database and of what memory knows of it.
type change struct {
	*store.Tx
	touched []*entry
}

// change runs fn in a transaction and then brings memory up to date with the
// tasks it put.
func (q *Queue) change(fn func(*change) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &change{}
	err := q.DB.Update(func(tx *store.Tx) error {
		c.Tx = tx
		return fn(c)
	})
	if err != nil {
		return err
	}
	for _, t := range c.touched {
		q.remember(t)
	}
	return nil
}

// put stores the status of a task.
func (c *change) put(t *entry) error {
	if err := statuses.Put(c.Tx, t.id, t.status); err != nil {
		return err
	}
	c.touched = append(c.touched, t)
	if t.status.Resolved() {
		return unresolved.Delete(c.Tx, t.id)
	}
	return unresolved.Put(c.Tx, t.id, struct{}{})
}

// remember brings hints and alarms in line with a task.
func (q *Queue) remember(t *entry) {
	claim, deadline := alarm{taskID: t.id}, alarm{taskID: t.id, deadline: true}
	queue := t.definition.TaskQueueID
	last := t.status.Last()
	if t.status.State() == lifecycle.Pending {
		q.pending.push(queue, &hint{
			taskID: t.id, run: last, rank: rank(t.definition.Priority), scheduled: t.status.Runs[last].Scheduled,
		})
	} else {
		q.pending.remove(queue, t.id)
	}
	if t.status.State() == lifecycle.Running {
		q.alarms.Set(claim, t.status.Runs[last].TakenUntil)
	} else {
		q.alarms.Clear(claim)
	}
	if t.status.Resolved() {
		q.alarms.Clear(deadline)
	} else {
		q.alarms.Set(deadline, t.definition.Deadline.Time)
	}
}
