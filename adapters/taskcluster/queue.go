package taskcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Queue hands out runs from the task queue that the worker is configured for.
type Queue struct{ c *Client }

var _ queue.Queue = (*Queue)(nil)

// NewQueue returns the queue of c's deployment.
func NewQueue(c *Client) *Queue { return &Queue{c} }

// claimed is a claim as claimWork returns it.
type claimed struct {
	Status struct {
		TaskID task.ID `json:"taskId"`
	} `json:"status"`
	RunID       int             `json:"runId"`
	TakenUntil  time.Time       `json:"takenUntil"`
	Task        json.RawMessage `json:"task"`
	Credentials credentials     `json:"credentials"`
}

// credentials are credentials as services return them.
type credentials struct {
	ClientID    string `json:"clientId"`
	AccessToken string `json:"accessToken"`
	Certificate string `json:"certificate"`
}

// Claim implements queue.Queue. When ctx is canceled, the queue has
// Config.CancelGrace to answer.
//
// Errors: a [CredentialsError], an [UnreachableError] or an [Error].
func (q *Queue) Claim(ctx context.Context, n int) ([]queue.Claim, error) {
	if n < 1 || n > queue.MaxClaims {
		return nil, fmt.Errorf("claim %d runs: not from 1 to %d", n, queue.MaxClaims)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("queue.claimWork: %w", err)
	}
	held, release := q.outlive(ctx)
	defer release()
	var answer struct {
		Tasks []claimed `json:"tasks"`
	}
	var clocks reading
	err := q.c.do(held, call{
		service: "queue", name: "claimWork", method: http.MethodPost,
		path:  segments("/claim-work/", q.c.cfg.TaskQueueID),
		creds: q.c.credentials(),
		in: struct {
			WorkerGroup string `json:"workerGroup"`
			WorkerID    string `json:"workerId"`
			Tasks       int    `json:"tasks"`
		}{q.c.cfg.WorkerGroup, q.c.cfg.WorkerID, n},
		out:     &answer,
		clocks:  &clocks,
		timeout: q.c.cfg.PollTimeout,
	})
	if err != nil {
		return nil, err
	}
	claims := make([]queue.Claim, 0, len(answer.Tasks))
	for _, granted := range answer.Tasks {
		if cl := q.claim(ctx, granted, clocks); cl != nil {
			claims = append(claims, cl)
		}
	}
	return claims, nil
}

// Resume implements queue.Queue.
func (q *Queue) Resume(s queue.Saved) (queue.Claim, error) {
	d, err := task.Parse(s.Definition)
	if err != nil {
		return nil, err
	}
	return &claim{c: q.c, id: s.Run, task: d, resumed: true, takenUntil: s.TakenUntil, credentials: s.Credentials}, nil
}

// outlive returns a context that is done only a grace after ctx is, and not at
// all once an answer has begun to arrive. The returned function releases it.
func (q *Queue) outlive(ctx context.Context) (held context.Context, release func()) {
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var answered atomic.Bool
	held = httptrace.WithClientTrace(held, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(q.c.cfg.CancelGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			if !answered.Load() {
				cancel()
			}
		case <-held.Done():
		}
	})
	return held, func() {
		stop()
		cancel()
	}
}

// claim returns the claim that was granted, or nil if the worker cannot make
// sense of the task, which it then reports as malformed.
func (q *Queue) claim(ctx context.Context, granted claimed, clocks reading) queue.Claim {
	c := &claim{
		c:           q.c,
		id:          task.RunID{Task: granted.Status.TaskID, Run: granted.RunID},
		takenUntil:  clocks.lasting(granted.TakenUntil),
		granted:     granted.TakenUntil,
		credentials: task.Credentials(granted.Credentials),
	}
	var err error
	if c.task, err = task.Parse(granted.Task); err == nil {
		return c
	}
	q.c.log.ErrorContext(ctx, "claimed a task that is not understood", slog.String("run", c.id.String()), slog.Any("error", err))
	// The claims that came with it must not wait for long.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.c.cfg.CancelGrace)
	defer cancel()
	if err := c.Resolve(ctx, run.Resolution{Outcome: run.Exception, Reason: run.MalformedPayload}); err != nil {
		q.c.log.ErrorContext(ctx, "cannot resolve a task that is not understood", slog.String("run", c.id.String()), slog.Any("error", err))
	}
	return nil
}
