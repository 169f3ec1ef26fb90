package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/verdict"
)

// pool is the task queue.
const pool = "chaos/chaos"

// callPatience is how long the queue may be away: it is restarted on purpose.
const callPatience = time.Minute

// client makes the calls of those who create tasks and look at them. They do
// not go through the proxy.
type client struct {
	queue *tcqueue.Queue
}

func newClient(address string) *client {
	q := tcqueue.New(&tcclient.Credentials{ClientID: "root", AccessToken: accessToken}, "http://"+address)
	q.HTTPClient = &http.Client{Timeout: 10 * time.Second}
	return &client{q}
}

// insist calls f until it succeeds, for as long as the queue may be away.
func insist(ctx context.Context, f func() error) error {
	end := time.Now().Add(callPatience)
	for {
		err := f()
		if err == nil || ctx.Err() != nil || time.Now().After(end) || final(err) {
			return err
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// final reports whether the queue has answered, and would answer the same
// again.
func final(err error) bool {
	e, ok := errors.AsType[*tcclient.APICallException](err)
	return ok && e.CallSummary.HTTPResponse != nil && e.CallSummary.HTTPResponse.StatusCode/100 == 4
}

// create creates the task of a job.
func (c *client) create(ctx context.Context, j job) error {
	payload, err := json.Marshal(j.payload)
	if err != nil {
		return err
	}
	now := time.Now()
	deadline := now.Add(time.Hour)
	if j.kind.deadline > 0 {
		deadline = now.Add(time.Duration(j.kind.deadline) * time.Second)
	}
	d := &tcqueue.TaskDefinitionRequest{
		TaskQueueID: pool, Payload: payload, Retries: 49, Created: tcclient.Time(now),
		Deadline: tcclient.Time(deadline), Expires: tcclient.Time(now.Add(2 * time.Hour)),
	}
	d.Metadata.Name, d.Metadata.Description = j.kind.name, "A task amid chaos."
	d.Metadata.Owner, d.Metadata.Source = "chaos@example.com", "https://example.com"
	return insist(ctx, func() error {
		_, err := c.queue.CreateTask(j.id, d)
		return err
	})
}

// status returns the status of a task.
func (c *client) status(ctx context.Context, id string) (status tcqueue.TaskStatusStructure, err error) {
	err = insist(ctx, func() error {
		answer, err := c.queue.Status(id)
		if err == nil {
			status = answer.Status
		}
		return err
	})
	return status, err
}

// cancel cancels a task.
func (c *client) cancel(ctx context.Context, id string) error {
	return insist(ctx, func() error {
		_, err := c.queue.CancelTask(id)
		return err
	})
}

// The names of what the worker itself stores.
const (
	backingLog = "public/logs/live_backing.log"
	liveLog    = "public/logs/live.log"
)

// examine returns what became of a job.
func (c *client) examine(ctx context.Context, j job, ledger string) (verdict.Task, error) {
	t := verdict.Task{ID: j.id, Kind: j.kind.name, Want: j.want}
	status, err := c.status(ctx, j.id)
	if err != nil {
		return t, err
	}
	for i, run := range status.Runs {
		r := verdict.Run{
			State: run.State, Reason: run.ReasonResolved, Started: time.Time(run.Started), Resolved: time.Time(run.Resolved),
			Artifacts: map[string]string{},
		}
		answer, err := c.queue.ListArtifacts(j.id, strconv.Itoa(i), "", "")
		if err != nil {
			return t, err
		}
		for _, a := range answer.Artifacts {
			content, err := c.artifact(ctx, j.id, i, a.Name)
			switch {
			case errors.Is(err, errNoContent):
				if a.Name == backingLog || a.Name == liveLog {
					continue // the worker was killed before it uploaded it
				}
				r.Artifacts[a.Name] = err.Error()
			case err != nil:
				return t, fmt.Errorf("get artifact %s of %s/%d: %w", a.Name, j.id, i, err)
			case a.Name == backingLog:
				r.HasLog, r.Log = true, string(content)
			case a.Name == liveLog:
			case a.StorageType == "error":
				r.Artifacts[a.Name] = Missing
			default:
				s := sha256.Sum256(content)
				r.Artifacts[a.Name] = hex.EncodeToString(s[:])
			}
		}
		r.Begun, r.Ended = witnessed(ledger, j.id, i, "begun"), witnessed(ledger, j.id, i, "ended")
		t.Runs = append(t.Runs, r)
	}
	return t, nil
}

// errNoContent says that an artifact was announced, and its content did not
// come.
var errNoContent = errors.New("there is no content")

// artifact returns the content of an artifact.
func (c *client) artifact(ctx context.Context, id string, run int, name string) ([]byte, error) {
	url := strings.TrimRight(c.queue.RootURL, "/") + "/api/queue/v1/task/" + id + "/runs/" + strconv.Itoa(run) + "/artifacts/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.queue.HTTPClient.(*http.Client).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, errNoContent
	case resp.StatusCode == http.StatusFailedDependency: // an error artifact
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", resp.Status, content[:min(len(content), 500)])
	}
	return content, nil
}

// witnessed returns how often a task has borne witness of something.
func witnessed(ledger, id string, run int, what string) int {
	if ledger == "" {
		return -1
	}
	name := filepath.Join(ledger, id+"."+strconv.Itoa(run)+"."+what)
	n := 0
	for _, path := range []string{name, name + ".again"} {
		if _, err := os.Stat(path); err == nil {
			n++
		}
	}
	return n
}
