package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/taskfile"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
)

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

// bench is an embedded queue with a worker on it.
type bench struct {
	server *devqueue.Server
	queue  *client.Client
	pool   string
	dir    string // of the native engine

	mu      sync.Mutex
	reports map[task.ID]chan worker.Report
}

// newBench starts a queue and a worker with a configuration in YAML.
func newBench(t *testing.T, configuration string, q devqueue.Config) *bench {
	t.Helper()
	l, dir := testConfig(t, configuration)
	q.Dir = filepath.Join(dir, "queue")
	b := &bench{pool: l.Worker.Pool, dir: l.Native.Dir, reports: map[task.ID]chan worker.Report{}}
	e, shut, err := composeEmbedded(t.Context(), l.config, q, parts.Hooks{Observe: b.observe}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	b.server = e.Queue
	queue, disconnect := client.New(e.Queue.RootURL(), e.Queue.Credentials())
	b.queue = queue
	t.Cleanup(func() {
		disconnect()
		shut()
	})
	work(t, e.Worker)
	return b
}

// work has a worker work until the end of the test.
func work(t *testing.T, w *worker.Worker) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("worker: %v", err)
		}
	})
}

// testConfig reads a configuration in YAML, for a directory of the test's own.
func testConfig(t *testing.T, configuration string) (l loaded, dir string) {
	t.Helper()
	dir, remove, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "worker.yml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err = loadConfig(file, nil, "", map[string]string{"worker.pool": localPool, "worker.group": localGroup})
	if err != nil {
		t.Fatal(err)
	}
	l.placeIn(dir)
	return l, dir
}

// testLog returns a log that is shown if the test fails.
func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (b *bench) observe(r worker.Report) { b.reportsOf(r.Run.Task) <- r }

func (b *bench) reportsOf(id task.ID) chan worker.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reports[id] == nil {
		b.reports[id] = make(chan worker.Report, 100)
	}
	return b.reports[id]
}

// create creates the task in a file's content.
func (b *bench) create(t *testing.T, content string) task.ID {
	t.Helper()
	file, err := taskfile.Parse(t.Name()+".yml", []byte(content), taskfile.Defaults{
		TaskQueueID: b.pool, MaxRunTime: time.Minute, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	id := client.NewTaskID()
	if err := b.queue.Create(t.Context(), id, file.Definition); err != nil {
		t.Fatal(err)
	}
	return id
}

// await waits until a task is resolved, and the worker is done with its last
// run, of which an exception is saved after the queue knows of it.
func (b *bench) await(t *testing.T, id task.ID) client.Status {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for last := -1; ; {
		select {
		case r := <-b.reportsOf(id):
			last = max(last, r.Run.Run)
		case <-timer.C:
			t.Fatalf("task %s is not resolved", id)
		}
		status, err := b.queue.Status(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if resolved(status.State) && last == len(status.Runs)-1 {
			return status
		}
	}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// cancel cancels a task, as its author would.
func (b *bench) cancel(t *testing.T, id task.ID) {
	t.Helper()
	creds := b.server.Credentials()
	q := tcqueue.New(&tcclient.Credentials{ClientID: creds.ClientID, AccessToken: creds.AccessToken}, b.server.RootURL())
	if _, err := q.CancelTask(string(id)); err != nil {
		t.Fatal(err)
	}
}

// stored is an artifact as one finds it in the queue.
type stored struct {
	storage, contentType, encoding string
	content                        string // decoded
}

// artifact returns an artifact of a run; ok tells whether there is one.
func (b *bench) artifact(t *testing.T, id task.RunID, name string) (s stored, ok bool) {
	t.Helper()
	all, err := b.queue.Artifacts(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a client.Artifact) bool { return a.Name == name })
	if i < 0 {
		return s, false
	}
	s.storage, s.contentType = all[i].StorageType, all[i].ContentType
	c, err := b.queue.Open(t.Context(), id, name)
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		return s, true
	}
	s.encoding = cmp.Or(c.Encoding, "identity")
	body := io.Reader(c.Body)
	if c.Encoding == "gzip" {
		if body, err = gzip.NewReader(c.Body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err = errors.Join(err, c.Body.Close()); err != nil {
		t.Fatal(err)
	}
	s.content = string(text)
	return s, true
}

// scenario is a task and what must become of it.
type scenario struct {
	name string
	task string // as in a file for "run"

	state, reason string
	runs          int                // how many there are; 1 if zero
	log           []string           // what the log of the last run has, in this order
	notInLog      []string           // what it does not have
	artifacts     map[string]*stored // by name; nil for one that must not be there. Fields that are empty may be anything
	check         func(t *testing.T, b *bench, id task.RunID, log string)
}

// try runs a scenario.
func (b *bench) try(t *testing.T, s scenario) {
	t.Helper()
	id := b.create(t, s.task)
	status := b.await(t, id)
	run := task.RunID{Task: id, Run: len(status.Runs) - 1}
	backing, _ := b.artifact(t, run, "public/logs/live_backing.log")
	log := backing.content

	got := status.Runs[run.Run]
	if got.State != s.state || got.ReasonResolved != s.reason || len(status.Runs) != max(s.runs, 1) {
		t.Errorf("task is %s (%s) after %d runs, want %s (%s) after %d; log:\n%s",
			got.State, got.ReasonResolved, len(status.Runs), s.state, s.reason, max(s.runs, 1), log)
	}
	rest := log
	for _, want := range s.log {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Errorf("log lacks, or has at another place: %s\nlog:\n%s", want, log)
			continue
		}
		rest = after
	}
	for _, unwanted := range s.notInLog {
		if strings.Contains(log, unwanted) {
			t.Errorf("log has: %s\nlog:\n%s", unwanted, log)
		}
	}
	for name, want := range s.artifacts {
		b.expect(t, run, name, want)
	}
	if s.check != nil {
		s.check(t, b, run, log)
	}
}

// expect compares an artifact with what is wanted of it.
func (b *bench) expect(t *testing.T, id task.RunID, name string, want *stored) {
	t.Helper()
	got, ok := b.artifact(t, id, name)
	if want == nil || !ok {
		if ok != (want != nil) {
			t.Errorf("artifact %s exists: %t, want %t", name, ok, want != nil)
		}
		return
	}
	for _, field := range []struct{ want, got *string }{
		{&want.storage, &got.storage},
		{&want.contentType, &got.contentType},
		{&want.encoding, &got.encoding},
		{&want.content, &got.content},
	} {
		if *field.want == "" {
			*field.got = ""
		}
	}
	if diff := gocmp.Diff(*want, got, gocmp.AllowUnexported(stored{})); diff != "" {
		t.Errorf("artifact %s (-want +got):\n%s", name, diff)
	}
}

// tryAll runs scenarios, all at once.
func (b *bench) tryAll(t *testing.T, scenarios []scenario) {
	t.Helper()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b.try(t, s)
		})
	}
}
