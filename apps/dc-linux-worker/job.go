package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/download"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	state "github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// What the embedded queue's pool and its worker's group are called.
const (
	localPool  = "local/dc-linux-worker"
	localGroup = "local"
)

// job is one task that is run on an embedded queue.
type job struct {
	definition json.RawMessage
	log        io.Writer // takes the task's log
	progress   *progress
	streams    command.Streams
	keep       string // directory for the artifacts; empty to store none

	id       task.ID
	follower *follower
	mu       sync.Mutex
	reports  []worker.Report
	over     chan struct{} // gets a value when a run is over
}

// run runs the task, and any further run that the queue adds, and removes all
// that it has made but for the artifacts.
//
// Errors: *client.Error, if the queue refuses the task.
func (j *job) run(ctx context.Context, l loaded) (res result, err error) {
	caught := signals.Catch()
	defer caught.Release()
	early, stop := caught.Context(ctx, 0)
	defer stop()
	dir, leave, err := l.settleIn("")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, leave()) }()

	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	j.over = make(chan struct{}, 1)
	e, shut, err := composeEmbedded(early, l.config, devqueue.Config{Dir: filepath.Join(dir, "queue")}, parts.Hooks{
		Signals:   caught,
		Temporary: l.isDefault("caches.table"),
		Decorate: func(r tasklog.Recorder) tasklog.Recorder {
			j.follower = newFollower(following, r, j.log)
			return j.follower
		},
		Observe: j.observe,
	}, command.NewLog(l.Log.Format, l.Log.Level, j.streams.Err))
	if err == nil {
		defer shut()
	}
	if early.Err() != nil {
		return res, errInterrupted
	}
	if err != nil {
		return res, err
	}
	queue, disconnect := client.New(e.Queue.RootURL(), e.Queue.Credentials())
	defer disconnect()

	j.id = client.NewTaskID()
	created := time.Now()
	if err := queue.Create(ctx, j.id, j.definition); err != nil {
		return res, err
	}
	stopProgress := j.progress.tick(j.doing)
	interrupted, err := j.work(ctx, e.Worker, queue)
	stopProgress()
	if err != nil {
		return res, err
	}
	j.drainLog(interrupted)
	res, err = j.result(ctx, queue, created)
	if logErr := j.follower.err(); logErr != nil {
		res.unstored = true
		_, _ = fmt.Fprintf(j.streams.Err, "dc-linux-worker: write the task log: %v\n", logErr)
	}
	return res, err
}

// doing says what goes on, for the progress line.
func (j *job) doing() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return fmt.Sprintf("task %s, run %d", j.id, len(j.reports))
}

// observe takes note of a run that is over.
func (j *job) observe(r worker.Report) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reports = append(j.reports, r)
	select {
	case j.over <- struct{}{}:
	default: // it is known already that there is news
	}
}

// work has the worker work until the task is resolved or the worker stops, by
// an interrupt say.
func (j *job) work(ctx context.Context, w *worker.Worker, queue *client.Client) (interrupted bool, err error) {
	working, stop := context.WithCancel(ctx)
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(working) }()

	// A deadline may pass without any run.
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-stopped:
			return true, err
		case <-j.over:
		case <-ticker.C:
		}
		status, err := queue.Status(ctx, j.id)
		if err != nil || resolved(status.State) && j.disposed(status) {
			stop()
			return false, errors.Join(err, <-stopped)
		}
	}
}

// disposed reports whether the worker is done with every run that it has
// claimed: what an exception leaves is saved after the queue knows of it.
func (j *job) disposed(status client.Status) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	claimed := 0
	for _, run := range status.Runs {
		if !run.Started.IsZero() {
			claimed++
		}
	}
	return len(j.reports) >= claimed
}

func resolved(s string) bool { return s == "completed" || s == "failed" || s == "exception" }

// logTime is how long an interrupted job waits for whoever reads the log.
const logTime = 2 * time.Second

// drainLog waits until the log is written out.
func (j *job) drainLog(interrupted bool) {
	var patience <-chan time.Time
	if interrupted {
		timer := time.NewTimer(logTime)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-j.follower.finished():
	case <-patience:
	}
}

// result returns what became of the task: of its last run that was resolved.
func (j *job) result(ctx context.Context, queue *client.Client, created time.Time) (result, error) {
	status, err := queue.Status(ctx, j.id)
	if err != nil {
		return result{}, err
	}
	r := result{TaskID: j.id, State: "exception", Reason: string(state.WorkerShutdown), Artifacts: []download.File{}}
	last := -1
	for i, run := range status.Runs {
		if resolved(run.State) {
			last = i
		}
	}
	ended := time.Now()
	if last >= 0 {
		run := status.Runs[last]
		r.RunID, r.State, r.Reason = last, run.State, run.ReasonResolved
		if !run.Started.IsZero() {
			r.Seconds.Queued = run.Started.Sub(run.Scheduled).Seconds()
		}
		ended = run.Resolved
		files, err := download.All(ctx, queue, task.RunID{Task: j.id, Run: last}, j.keep)
		if err != nil {
			r.unstored = true
			_, _ = fmt.Fprintf(j.streams.Err, "dc-linux-worker: %v\n", err)
		}
		r.Artifacts = append(r.Artifacts, files...)
	}
	r.Seconds.Total = max(ended.Sub(created), 0).Seconds()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, report := range j.reports {
		if report.Run.Run == last {
			r.Seconds.Prepare = spent(report, state.Claimed, state.Preparing, state.Building)
			r.Seconds.Run = spent(report, state.Running)
			r.Seconds.Collect = spent(report, state.Collecting, state.Finishing)
		}
	}
	return r, nil
}

// spent returns the seconds that a run was in any of the states.
func spent(r worker.Report, states ...state.State) float64 {
	var sum time.Duration
	for _, s := range states {
		sum += r.Stages[s]
	}
	return sum.Seconds()
}

// errInterrupted says that a signal came before there was any work.
var errInterrupted = errors.New("interrupted")
