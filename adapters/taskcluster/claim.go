package taskcluster

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// claim is a hold on a run.
type claim struct {
	c    *Client
	id   task.RunID
	task task.Definition

	resumed bool // an earlier process had it

	mu          sync.Mutex
	takenUntil  time.Time // by this host's clock
	granted     time.Time // the latest takenUntil of an answer, by the queue's clock
	credentials task.Credentials
}

var _ queue.Claim = (*claim)(nil)

// Run implements queue.Claim.
func (cl *claim) Run() task.RunID { return cl.id }

// Task implements queue.Claim.
func (cl *claim) Task() task.Definition { return cl.task }

// TakenUntil implements queue.Claim.
func (cl *claim) TakenUntil() time.Time {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.takenUntil
}

// Credentials implements queue.Claim.
func (cl *claim) Credentials() task.Credentials {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.credentials
}

// Reclaim implements queue.Claim.
func (cl *claim) Reclaim(ctx context.Context) error {
	var answer struct {
		TakenUntil  time.Time   `json:"takenUntil"`
		Credentials credentials `json:"credentials"`
	}
	var clocks reading
	err := cl.c.do(ctx, call{
		service: "queue", name: "reclaimTask", method: http.MethodPost,
		path: runPath(cl.id, "/reclaim"), creds: cl.Credentials(), out: &answer, clocks: &clocks,
	})
	if err != nil {
		return lost(err, cl.TakenUntil())
	}
	until := clocks.lasting(answer.TakenUntil)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	// Answers to concurrent calls may arrive in any order.
	if !answer.TakenUntil.Before(cl.granted) {
		cl.granted, cl.takenUntil, cl.credentials = answer.TakenUntil, until, task.Credentials(answer.Credentials)
	}
	return nil
}

// Check implements queue.Claim.
func (cl *claim) Check(ctx context.Context) error {
	var answer struct {
		Status struct {
			Runs []struct {
				State string `json:"state"`
			} `json:"runs"`
		} `json:"status"`
	}
	err := cl.c.do(ctx, call{
		service: "queue", name: "status", method: http.MethodGet,
		path: segments("/task/", string(cl.id.Task), "/status"), creds: cl.Credentials(), out: &answer,
	})
	if err != nil {
		return lost(err, cl.TakenUntil())
	}
	runs := answer.Status.Runs
	if cl.id.Run >= len(runs) {
		return fmt.Errorf("%w: the queue does not know run %v", queue.ErrClaimLost, cl.id)
	}
	if state := runs[cl.id.Run].State; state != "running" {
		return fmt.Errorf("%w: run %v is %s", queue.ErrClaimLost, cl.id, state)
	}
	return nil
}

// Resolve implements queue.Claim.
func (cl *claim) Resolve(ctx context.Context, r run.Resolution) error {
	report := call{service: "queue", method: http.MethodPost}
	switch r.Outcome {
	case run.Completed:
		report.name, report.path = "reportCompleted", runPath(cl.id, "/completed")
	case run.Failed:
		report.name, report.path = "reportFailed", runPath(cl.id, "/failed")
	case run.Exception:
		report.name, report.path = "reportException", runPath(cl.id, "/exception")
		report.in = struct {
			Reason run.Reason `json:"reason"`
		}{r.Reason}
	default:
		return fmt.Errorf("resolve run %v: %v cannot be reported", cl.id, r)
	}
	end := cl.TakenUntil()
	err := cl.c.retry(ctx, report.op(), forever, func() error {
		report.creds = cl.Credentials()
		err := cl.c.do(ctx, report)
		if refusesCredentials(err) && time.Now().Before(end) {
			return passing{err} // with the next reclaim, or once a clock is right
		}
		return err
	})
	return lost(err, cl.TakenUntil())
}

// runPath returns the path of what belongs to a run.
func runPath(id task.RunID, suffix string) string {
	return segments("/task/", string(id.Task), "/runs/"+strconv.Itoa(id.Run)+suffix)
}
