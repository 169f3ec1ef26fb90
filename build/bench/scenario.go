package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// scenario is a number of equal tasks for the worker.
type scenario struct {
	name     string
	capacity int
	tasks    int
	command  string
}

// figure is what came of a scenario.
type figure struct {
	rate        float64       // tasks per second, from the first claim to the last resolution
	median, p95 time.Duration // from claim to resolution
	rss, pss    int64         // greatest memory in bytes: of the worker, of the processes it keeps for tasks
}

type bench struct {
	dir    string
	server *devqueue.Server
	count  int
}

// measure creates the tasks, then starts the worker, and stops it once all
// tasks are resolved.
func (b *bench) measure(ctx context.Context, s scenario) (figure, error) {
	b.count++
	pool := fmt.Sprintf("bench/pool-%d", b.count)
	root := b.server.Credentials()
	queue := tcqueue.New(&tcclient.Credentials{ClientID: root.ClientID, AccessToken: root.AccessToken}, b.server.RootURL())
	ids, err := createTasks(queue, pool, s)
	if err != nil {
		return figure{}, err
	}
	cmd, err := b.command(ctx, s, pool)
	if err != nil {
		return figure{}, err
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if cmd.Stderr, err = os.Create(filepath.Join(b.dir, "worker.log")); err != nil {
		return figure{}, err
	}
	if err := cmd.Start(); err != nil {
		return figure{}, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var f figure
	watching := &memory{pid: cmd.Process.Pid}
	err = b.await(ctx, queue, ids, exited, watching)
	if err == nil {
		f, err = judge(queue, ids)
	}
	f.rss, f.pss = watching.rss, watching.pss
	_ = cmd.Process.Signal(syscall.SIGTERM) // fails if it has exited
	if watching.exited {
		return f, err
	}
	if stopped := <-exited; err == nil && stopped != nil {
		err = fmt.Errorf("worker: %w", stopped)
	}
	return f, err
}

// await waits until every task is resolved, and keeps an eye on memory. The
// tasks' order of resolution is roughly that of their creation, so that the
// last is asked for first.
func (b *bench) await(ctx context.Context, queue *tcqueue.Queue, ids []string, exited <-chan error, m *memory) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	left := slices.Clone(ids)
	for len(left) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-exited:
			m.exited = true
			if len(left) > 1 {
				return fmt.Errorf("the worker has exited: %w", err)
			}
		case <-ticker.C:
		}
		m.sample()
		status, err := queue.Status(left[len(left)-1])
		if err != nil {
			return err
		}
		switch status.Status.State {
		case "completed":
			left = left[:len(left)-1]
		case "failed", "exception":
			return fmt.Errorf("task %s is %s", left[len(left)-1], status.Status.State)
		}
		for len(left) > 0 && status.Status.State == "completed" {
			if status, err = queue.Status(left[len(left)-1]); err != nil {
				return err
			}
			if status.Status.State == "completed" {
				left = left[:len(left)-1]
			}
		}
	}
	return nil
}

// judge reads from the queue when runs were claimed and resolved.
func judge(queue *tcqueue.Queue, ids []string) (figure, error) {
	var first, last time.Time
	var took []time.Duration
	for _, id := range ids {
		status, err := queue.Status(id)
		if err != nil {
			return figure{}, err
		}
		started, resolved := time.Time(status.Status.Runs[0].Started), time.Time(status.Status.Runs[0].Resolved)
		if first.IsZero() || started.Before(first) {
			first = started
		}
		if resolved.After(last) {
			last = resolved
		}
		took = append(took, resolved.Sub(started))
	}
	slices.Sort(took)
	return figure{
		rate:   float64(len(ids)) / last.Sub(first).Seconds(),
		median: took[len(took)/2],
		p95:    took[len(took)*95/100],
	}, nil
}

func createTasks(queue *tcqueue.Queue, pool string, s scenario) ([]string, error) {
	provisioner, workerType, _ := strings.Cut(pool, "/")
	payload, err := json.Marshal(map[string]any{"command": [][]string{strings.Fields(s.command)}, "maxRunTime": 60})
	if err != nil {
		return nil, err
	}
	ids := make([]string, s.tasks)
	for i := range ids {
		ids[i] = slugid.Nice()
		definition := &tcqueue.TaskDefinitionRequest{
			ProvisionerID: provisioner, WorkerType: workerType, TaskQueueID: pool, SchedulerID: "-",
			Created: tcclient.Time(time.Now()), Deadline: tcclient.Time(time.Now().Add(time.Hour)),
			Expires: tcclient.Time(time.Now().Add(2 * time.Hour)), Payload: payload,
		}
		definition.Metadata.Name, definition.Metadata.Description = "bench", "A task to be measured."
		definition.Metadata.Owner, definition.Metadata.Source = "bench@example.com", "https://example.com"
		if _, err := queue.CreateTask(ids[i], definition); err != nil {
			return nil, err
		}
	}
	return ids, nil
}
