package queue

import (
	"context"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
)

func (q *Queue) reportCompleted(_ context.Context, c *api.Call) (any, error) {
	return q.report(c, func(s lifecycle.Status, run int, now time.Time) (lifecycle.Status, bool) {
		return s.Complete(run, now)
	}, lifecycle.Completed, string(lifecycle.Completed), 0)
}

func (q *Queue) reportFailed(_ context.Context, c *api.Call) (any, error) {
	return q.report(c, func(s lifecycle.Status, run int, now time.Time) (lifecycle.Status, bool) {
		return s.Fail(run, now)
	}, lifecycle.Failed, string(lifecycle.Failed), 0)
}

func (q *Queue) reportException(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		Reason string `json:"reason"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	return q.report(c, func(s lifecycle.Status, run int, now time.Time) (lifecycle.Status, bool) {
		return s.Except(run, input.Reason, now)
	}, lifecycle.Exception, input.Reason, 1)
}

// report resolves a run. The same report again changes nothing, as long as at
// most so many runs have followed; any other one is a conflict.
func (q *Queue) report(
	c *api.Call, verb func(lifecycle.Status, int, time.Time) (lifecycle.Status, bool),
	state lifecycle.State, reason string, followers int,
) (any, error) {
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
		now := api.Now().Time
		var changed bool
		if t.status, changed = verb(t.status, run, now); changed {
			return q.settle(tx, t, now)
		}
		r := t.status.Runs[run]
		if r.State != state || r.ReasonResolved != reason || t.status.Last() > run+followers {
			return t.notRunning(run)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t.answer(), nil
}
