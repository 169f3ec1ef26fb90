package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// claim is one claimed run as the queue answers it.
type claim struct {
	Status      statusView      `json:"status"`
	RunID       int             `json:"runId"`
	WorkerGroup string          `json:"workerGroup"`
	WorkerID    string          `json:"workerId"`
	TakenUntil  api.Time        `json:"takenUntil"`
	Task        *Definition     `json:"task,omitempty"`
	Credentials api.Credentials `json:"credentials"`
}

func (q *Queue) claimWork(ctx context.Context, c *api.Call) (any, error) {
	var input struct {
		WorkerGroup string `json:"workerGroup"`
		WorkerID    string `json:"workerId"`
		Tasks       int    `json:"tasks"`
	}
	input.Tasks = 1
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if err := c.Authorize(api.Params{"workerGroup": input.WorkerGroup, "workerId": input.WorkerID}); err != nil {
		return nil, err
	}
	queue := c.Params["taskQueueId"]
	by := lifecycle.Worker{Group: input.WorkerGroup, ID: input.WorkerID}
	ctx, cancel := context.WithTimeout(ctx, q.PollTimeout)
	defer cancel()
	quarantined, err := q.meet(queue, by)
	if err != nil {
		return nil, err
	}
	claims := []claim{}
	if quarantined {
		// Answering at once would make the worker call again in a tight loop.
		<-ctx.Done()
	}
	for len(claims) == 0 {
		hints := q.pending.take(ctx, queue, input.Tasks)
		if len(hints) == 0 {
			break
		}
		if claims, err = q.claimAll(queue, by, hints); err != nil {
			return nil, err
		}
	}
	return map[string][]claim{"tasks": claims}, nil
}

// claimAll claims those of the hinted runs that are still pending.
func (q *Queue) claimAll(queue string, by lifecycle.Worker, hints []*hint) ([]claim, error) {
	var claimed []*entry
	until := api.Now().Add(q.ClaimTimeout).Truncate(time.Millisecond)
	err := q.change(func(tx *change) error {
		claimed = nil
		now := api.Now().Time
		for _, h := range hints {
			t, err := load(tx.Tx, h.taskID)
			if err != nil {
				return err
			}
			var changed bool
			if t.status, changed = t.status.Claim(h.run, by, until, now); !changed {
				continue
			}
			if err := tx.put(t); err != nil {
				return err
			}
			claimed = append(claimed, t)
		}
		return noteTasks(tx.Tx, queue, by, claimed)
	})
	if err != nil {
		// What could not be claimed is still pending.
		for _, h := range hints {
			q.pending.push(queue, h)
		}
		return nil, fmt.Errorf("claim: %w", err)
	}
	claims := make([]claim, 0, len(claimed))
	for _, t := range claimed {
		one, err := q.grant(t)
		if err != nil {
			return nil, err
		}
		one.Task = &t.definition
		claims = append(claims, one)
	}
	return claims, nil
}

// grant describes the claim of a task's last run, with fresh credentials.
func (q *Queue) grant(t *entry) (claim, error) {
	run := t.status.Last()
	r := t.status.Runs[run]
	id := t.id + "/" + strconv.Itoa(run)
	client := strings.Join([]string{
		"task-client", id, "on", r.WorkerGroup, r.WorkerID, "until",
		strconv.FormatFloat(float64(r.TakenUntil.UnixMilli())/1000, 'f', -1, 64),
	}, "/")
	scopes := append([]string{"queue:reclaim-task:" + id, "queue:resolve-task:" + id, "queue:create-artifact:" + id}, t.definition.Scopes...)
	credentials, err := q.Authority.Issue(client, time.Now(), r.TakenUntil, scopes...)
	return claim{
		Status: t.view(), RunID: run, WorkerGroup: r.WorkerGroup, WorkerID: r.WorkerID,
		TakenUntil: api.Time{Time: r.TakenUntil}, Credentials: api.View(credentials),
	}, err
}

func (q *Queue) claimTask(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		WorkerGroup string `json:"workerGroup"`
		WorkerID    string `json:"workerId"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	run, err := c.Run()
	if err != nil {
		return nil, err
	}
	t, err := q.view(c.Params["taskId"])
	if err != nil {
		return nil, err
	}
	err = c.Authorize(api.Params{
		"workerGroup": input.WorkerGroup, "workerId": input.WorkerID,
		"provisionerId": t.definition.ProvisionerID, "workerType": t.definition.WorkerType,
	})
	if err != nil {
		return nil, err
	}
	if err := t.inTime("claimed"); err != nil {
		return nil, err
	}
	if run >= len(t.status.Runs) {
		return nil, t.noRun(run)
	}
	by := lifecycle.Worker{Group: input.WorkerGroup, ID: input.WorkerID}
	quarantined, err := q.meet(t.definition.TaskQueueID, by)
	if err != nil || quarantined {
		return nil, err
	}
	claims, err := q.claimAll(t.definition.TaskQueueID, by, []*hint{{taskID: t.id, run: run}})
	if err != nil {
		return nil, err
	}
	if len(claims) == 0 {
		return nil, api.Conflict("Run %d was already claimed by another worker.", run)
	}
	return claims[0], nil
}

func (q *Queue) reclaimTask(_ context.Context, c *api.Call) (any, error) {
	run, err := c.Run()
	if err != nil {
		return nil, err
	}
	var t *entry
	err = q.change(func(tx *change) error {
		if t, err = load(tx.Tx, c.Params["taskId"]); err != nil {
			return err
		}
		if run >= len(t.status.Runs) {
			return t.noRun(run)
		}
		if err := t.inTime("reclaimed"); err != nil {
			return err
		}
		var changed bool
		if t.status, changed = t.status.Reclaim(run, api.Now().Add(q.ClaimTimeout).Truncate(time.Millisecond)); !changed {
			return t.notRunning(run)
		}
		return tx.put(t)
	})
	if err != nil {
		return nil, err
	}
	r := t.status.Runs[run]
	if _, err := q.meet(t.definition.TaskQueueID, lifecycle.Worker{Group: r.WorkerGroup, ID: r.WorkerID}); err != nil {
		return nil, err
	}
	return q.grant(t)
}

// inTime returns an error if the task's deadline has passed.
func (t *entry) inTime(verb string) error {
	if d := t.definition.Deadline; !time.Now().Before(d.Time) {
		return api.Conflict("Task `%s` can't be %s past its deadline of %s.", t.id, verb, api.Date(d.Time))
	}
	return nil
}

func (t *entry) noRun(run int) error {
	return api.NotFound("Run %d not found on task `%s`.", run, t.id)
}

func (t *entry) notRunning(run int) error {
	return api.Conflict("Run %d on task `%s` is resolved or not running.", run, t.id)
}

// expire resolves what an alarm is about, if its time has come in the database
// too.
func (q *Queue) expire(a alarm) error {
	return q.change(func(tx *change) error {
		if _, known, err := definitions.Get(tx.Tx, a.taskID); err != nil || !known {
			return err
		}
		t, err := load(tx.Tx, a.taskID)
		if err != nil {
			return err
		}
		now := api.Now().Time
		// The precision of the APIs is coarser than the clock's.
		if now.Before(t.definition.Deadline.Time) == a.deadline {
			return nil
		}
		var changed bool
		if a.deadline {
			t.status, changed = t.status.Cancel(lifecycle.DeadlineExceeded, now)
		} else if last := t.status.Last(); last >= 0 {
			t.status, changed = t.status.Expire(last, t.status.Runs[last].TakenUntil, now)
		}
		if !changed {
			return nil
		}
		return q.settle(tx, t, now)
	})
}

// noteTasks adds runs to those that a worker has claimed lately.
func noteTasks(tx *store.Tx, queue string, by lifecycle.Worker, claimed []*entry) error {
	if len(claimed) == 0 {
		return nil
	}
	key := workerKey(queue, by)
	w, _, err := workers.Get(tx, key)
	if err != nil {
		return err
	}
	for _, t := range claimed {
		w.RecentTasks = append(w.RecentTasks, recentTask{t.id, t.status.Last()})
	}
	w.RecentTasks = w.RecentTasks[max(0, len(w.RecentTasks)-20):]
	return workers.Put(tx, key, w)
}
