package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// interval is how often the queue is asked, and memory is sampled where it is.
// It is long, since both cost the worker processor time.
const interval = 200 * time.Millisecond

// patience bounds each scenario.
const patience = 2 * time.Minute

// scenario is a number of equal tasks for a worker.
type scenario struct {
	worker   string // ours, oursInDocker or genericWorker.
	capacity int
	tasks    int
	command  []string
}

func (s scenario) String() string {
	return fmt.Sprintf("%s, %d × %s, capacity %d", s.worker, s.tasks, strings.TrimPrefix(strings.Join(s.command, " "), "/bin/"), s.capacity)
}

// figure is what came of a scenario.
type figure struct {
	took        time.Duration // From the first claim to the last resolution.
	rate        float64       // Tasks per second of took.
	median, p95 time.Duration // From claim to resolution of a task.
	rss, pss    int64         // The greatest memory seen, in bytes: of the worker, of all its supervisors.
}

// bench measures one scenario after another, each on a task queue of its own.
type bench struct {
	dir    string
	server *devqueue.Server
	daemon *dockertest.Daemon // nil before containers are measured
	count  int
}

// run creates the tasks, then starts the worker, and stops it once all tasks are
// resolved. It samples the worker's memory if m is not nil.
func (b *bench) run(ctx context.Context, s scenario, m *memory) (f figure, err error) {
	fmt.Fprintln(os.Stderr, "bench: "+s.String())
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b.count++
	taskQueue := fmt.Sprintf("bench/queue-%d", b.count)
	root := b.server.Credentials()
	queue := tcqueue.New(&tcclient.Credentials{ClientID: root.ClientID, AccessToken: root.AccessToken}, b.server.RootURL())
	queue.Context = ctx
	ids, err := createTasks(queue, taskQueue, s)
	if err != nil {
		return figure{}, err
	}
	p, err := b.start(ctx, s, taskQueue)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, p.stop(err != nil)) }()
	if err := await(ctx, queue, ids, p, m); err != nil {
		return figure{}, err
	}
	return evaluate(queue, ids)
}

// await waits until every task is resolved, and samples the worker's memory if m
// is not nil. It asks for one task at a time, so as not to keep the queue from its work.
func await(ctx context.Context, queue *tcqueue.Queue, ids []string, p *process, m *memory) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	left := slices.Clone(ids)
	for len(left) > 0 {
		// A worker that stops after its last task leaves nothing unresolved.
		gone := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			gone = true
		case <-ticker.C:
			if m != nil {
				m.sample(p.cmd.Process.Pid)
			}
		}
		for len(left) > 0 {
			answer, err := queue.Status(left[len(left)-1])
			if err != nil {
				return fmt.Errorf("get status: %w", err)
			}
			if state := answer.Status.State; state == "pending" || state == "running" {
				break
			}
			left = left[:len(left)-1]
		}
		if gone && len(left) > 0 {
			return fmt.Errorf("the worker has exited with at least one of %d tasks unresolved", len(left))
		}
	}
	return nil
}

// evaluate reads from the queue when runs were claimed and resolved. Tasks that
// did not complete at once would make the figures worthless.
func evaluate(queue *tcqueue.Queue, ids []string) (figure, error) {
	var first, last time.Time
	var took []time.Duration
	for _, id := range ids {
		answer, err := queue.Status(id)
		if err != nil {
			return figure{}, fmt.Errorf("get status: %w", err)
		}
		status := answer.Status
		if status.State != "completed" || len(status.Runs) != 1 {
			return figure{}, fmt.Errorf("task %s is %s after %d runs", id, status.State, len(status.Runs))
		}
		started, resolved := time.Time(status.Runs[0].Started), time.Time(status.Runs[0].Resolved)
		if first.IsZero() || started.Before(first) {
			first = started
		}
		if resolved.After(last) {
			last = resolved
		}
		took = append(took, resolved.Sub(started))
	}
	slices.Sort(took)
	all := last.Sub(first)
	return figure{
		took: all, rate: float64(len(ids)) / all.Seconds(),
		median: took[(len(took)-1)/2], p95: took[(len(took)*95+99)/100-1],
	}, nil
}

// createTasks creates the tasks of a scenario and returns their ids.
func createTasks(queue *tcqueue.Queue, taskQueue string, s scenario) ([]string, error) {
	properties := map[string]any{"command": [][]string{s.command}, "maxRunTime": 60}
	if s.worker == oursInDocker {
		properties["image"] = dockertest.Image
	}
	payload, err := json.Marshal(properties)
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	now := time.Now()
	ids := make([]string, s.tasks)
	for i := range ids {
		ids[i] = slugid.Nice()
		definition := &tcqueue.TaskDefinitionRequest{
			TaskQueueID: taskQueue, Payload: payload, Created: tcclient.Time(now),
			Deadline: tcclient.Time(now.Add(time.Hour)), Expires: tcclient.Time(now.Add(2 * time.Hour)),
		}
		definition.Metadata.Name, definition.Metadata.Description = "bench", "A task to be measured."
		definition.Metadata.Owner, definition.Metadata.Source = "bench@example.com", "https://example.com"
		if _, err := queue.CreateTask(ids[i], definition); err != nil {
			return nil, fmt.Errorf("create task: %w", err)
		}
	}
	return ids, nil
}
