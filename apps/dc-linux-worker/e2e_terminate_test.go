package main

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// terminating is a task that is in execution when the worker is told to stop.
type terminating struct {
	name    string
	worker  string // settings of the worker, in braces of YAML
	script  string // in a shell; it has no single quotes
	payload string // properties besides, in braces of YAML
	scopes  string // of the task
	ready   string // what its log has when it is time; a line of the script if empty
	signal  syscall.Signal

	state, reason string
	exited        time.Duration // the longest time for the process to end
	log           []string
	artifacts     map[string]string // text in each; empty for one that must not be there
	next          string            // state of the next run, by another worker; empty for none
}

// terminations are what must hold on every engine alike.
var terminations = []terminating{ //nolint:gochecknoglobals // a table
	{
		name:   "a task that writes out what it has",
		worker: "shutdownGrace: 20s",
		script: `[ $RUN_ID = 0 ] || exit 0; ` +
			`trap "echo last words; cp $TASKCLUSTER_INTERRUPTION_FILE told; echo half > partial; exit 0" TERM; ` +
			`echo whole > whole; echo re""ady; while :; do sleep 0.05; done`,
		payload: `artifacts: [{type: file, path: partial, name: public/partial, optional: true, onInterruption: upload},
			{type: file, path: told, name: public/told, optional: true, onInterruption: upload},
			{type: file, path: missing, name: public/missing, optional: true, onInterruption: upload},
			{type: file, path: whole, name: public/whole, optional: true}]`,
		signal: syscall.SIGTERM,
		state:  "pending", reason: "worker-shutdown",
		exited:    10 * time.Second,
		log:       []string{"worker shutdown: SIGTERM", "last words", "=== Task Finished ==="},
		artifacts: map[string]string{"public/partial": "half\n", "public/told": `{"cause":"SIGTERM","deadline":"20`, "public/whole": "", "public/missing": ""},
		next:      "completed",
	},
	{
		name:    "a task that ignores the signal",
		worker:  "shutdownGrace: 20s, taskGrace: 500ms",
		script:  `trap "" TERM; setsid sleep 3602.5 & echo before > partial; echo re""ady; while :; do sleep 0.05; done`,
		payload: `artifacts: [{type: file, path: partial, name: public/partial, onInterruption: upload}]`,
		signal:  syscall.SIGTERM,
		state:   "pending", reason: "worker-shutdown",
		exited:    10 * time.Second,
		log:       []string{"worker shutdown: SIGTERM", "The task has not ended in time, and is killed", "=== Task Finished ==="},
		artifacts: map[string]string{"public/partial": "before\n"},
	},
	{
		// The deadline comes long before the artifact could be saved.
		name:   "while an artifact of 1 GiB is pending",
		worker: "shutdownGrace: 5s",
		script: `truncate -s 1073741824 big; echo small > small; echo re""ady`,
		payload: `artifacts: [{type: file, path: small, name: public/small, onInterruption: upload},
			{type: file, path: big, name: public/big, onInterruption: upload}]`,
		ready:  "Uploading artifact public/big",
		signal: syscall.SIGTERM,
		state:  "pending", reason: "worker-shutdown",
		exited:    12 * time.Second,
		log:       []string{"ready\n", "worker shutdown: SIGTERM", "=== Task Finished ==="},
		artifacts: map[string]string{"public/small": "small\n"},
	},
	{
		name:    "a task that may finish, and is told so",
		worker:  "capacity: 2",
		script:  `echo re""ady; until [ -e $TASKCLUSTER_INTERRUPTION_FILE ]; do sleep 0.05; done; cat $TASKCLUSTER_INTERRUPTION_FILE`,
		payload: `artifacts: []`,
		signal:  syscall.SIGUSR1,
		state:   "completed", reason: "completed",
		exited: 15 * time.Second,
		log:    []string{`{"cause":"SIGUSR1"}`},
	},
}

// cacheTerminations are what must hold where there are caches: the next run
// completes if it finds what it should of the run that was interrupted.
var cacheTerminations = []terminating{ //nolint:gochecknoglobals // a table
	{
		name:   "a task that leaves its cache in order",
		worker: "shutdownGrace: 20s",
		script: `[ $RUN_ID = 0 ] || exec test -e /cache/file; ` +
			`trap "exit 0" TERM; touch /cache/file; echo re""ady; while :; do sleep 0.05; done`,
		payload: `mounts: [{cacheName: good, directory: /cache}]`,
		scopes:  "generic-worker:cache:good",
		signal:  syscall.SIGTERM,
		state:   "pending", reason: "worker-shutdown",
		exited: 10 * time.Second,
		log:    []string{"Preserving cache: Moving /cache to cache good"},
		next:   "completed",
	},
	{
		name:   "a task that is killed with its cache",
		worker: "shutdownGrace: 20s, taskGrace: 0s",
		script: `[ $RUN_ID = 0 ] || exec test ! -e /cache/file; ` +
			`trap "" TERM; touch /cache/file; echo re""ady; while :; do sleep 0.05; done`,
		payload: `mounts: [{cacheName: bad, directory: /cache}]`,
		scopes:  "generic-worker:cache:bad",
		signal:  syscall.SIGTERM,
		state:   "pending", reason: "worker-shutdown",
		exited: 10 * time.Second,
		log:    []string{"Removing cache bad from cache table"},
		next:   "completed",
	},
}

// SIGTERM in the middle of a task: worker-shutdown is on the queue within a
// second, the next run can start, what the task wants is saved, and the process
// ends in time, having left nothing behind.
func TestTerminate(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	for i, tt := range terminations {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, b, "native", i) })
	}
}

// The same with containers.
func TestTerminateWithDocker(t *testing.T) {
	withDocker(t, func(t *testing.T) {
		t.Helper()
		b := newBench(t, "engine: docker\ndocker: {host: '"+daemon.Host()+"', egress: none, pull: missing}\nworker: {pollInterval: 200ms}", devqueue.Config{})
		for i, tt := range append(slices.Clone(terminations), cacheTerminations...) {
			t.Run(tt.name, func(t *testing.T) { tt.test(t, b, "docker", i) })
		}
		t.Run("a task that is canceled", func(t *testing.T) {
			id := b.create(t, "payload: {image: '"+dockertest.Image+"', maxRunTime: 60, command: [[sh, -c, 'setsid sleep 3600.5 & exec sleep 3600.5']]}")
			b.cancelRunning(t, id, "3600.5")
		})
	})
}

// A worker that waits for tasks, with a call for some in flight, ends at once.
func TestTerminateWhileACallForWorkIsInFlight(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	creds := b.server.Credentials()
	q := tcqueue.New(&tcclient.Credentials{ClientID: creds.ClientID, AccessToken: creds.AccessToken}, b.server.RootURL())
	_, dir := testConfig(t, "{}")
	_, at := testConfig(t, settingsIn(dir, "proj-test/idle", "capacity: 1"))
	p := startProgram(t, b, "start", "--config", filepath.Join(at, "worker.yml"))
	eventually(t, "the call", func() bool {
		_, err := q.GetWorker("proj-test", "idle", "g", "w")
		return err == nil
	})
	begin := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil || time.Since(begin) > 10*time.Second {
		t.Errorf("worker exits after %v with %v; its log:\n%s", time.Since(begin), err, p.stderr)
	}
}

// A worker that is killed between the report and the rescue: the next process
// saves what the task left.
func TestKilledBeforeItHasSaved(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	_, dir := testConfig(t, "{}")
	_, at := testConfig(t, settingsIn(dir, "proj-test/rescue", "shutdownGrace: 1h, stopLead: 2h, taskGrace: 1h"))
	args := []string{"start", "--config", filepath.Join(at, "worker.yml")}
	first := startProgram(t, b, args...)
	id := b.create(t, "taskQueueId: proj-test/rescue\nretries: 0\npayload: {maxRunTime: 600, command: [[/bin/sh, -c, "+
		"'trap \"\" TERM; echo half > partial; echo re\"\"ady; while :; do sleep 0.05; done']],\n"+
		"artifacts: [{type: file, path: partial, name: public/partial, onInterruption: upload}]}")
	eventually(t, "the task's progress", func() bool { return prints(t, filepath.Join(dir, "state", "logs"), "ready\n") })
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a resolution", func() bool {
		status, err := b.queue.Status(t.Context(), id)
		return err == nil && status.State == "exception"
	})
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // it was killed
	second := startProgram(t, b, args...)
	run := task.RunID{Task: id}
	eventually(t, "the log, and the link to it, which comes last", func() bool {
		artifacts, err := b.queue.Artifacts(t.Context(), run)
		return err == nil && slices.ContainsFunc(artifacts, func(a client.Artifact) bool { return a.Name == "public/logs/live.log" })
	})
	tt := terminating{
		log:       []string{"ready\n", "worker shutdown: SIGTERM", "=== Task Finished ==="},
		artifacts: map[string]string{"public/partial": "half\n"},
	}
	tt.checkSaved(t, b, run)
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the next worker exits with %v", err)
	}
}

// settingsIn returns the configuration of a worker that has all it keeps in a
// directory.
func settingsIn(dir, pool, worker string) string {
	return "worker: {pool: " + pool + ", group: g, id: w, " + worker + "}\nstate: " + filepath.Join(dir, "state") +
		"\nnative: {dir: " + filepath.Join(dir, "native") + "}\ncaches: {table: " + filepath.Join(dir, "caches.json") + "}\n"
}

// test runs the worker with an engine, on the queue of a bench.
func (tt terminating) test(t *testing.T, b *bench, engine string, index int) {
	t.Helper()
	pool := "proj-test/" + engine + string(rune('a'+index))
	_, dir := testConfig(t, "{}")
	configuration := settingsIn(dir, pool, tt.worker)
	payload := "maxRunTime: 600, command: [[/bin/sh, -c, '" + tt.script + "']], " + tt.payload
	if engine == "docker" {
		configuration += "engine: docker\ndocker: {host: '" + daemon.Host() + "', egress: none, pull: missing, minFree: 1MiB}\n"
		payload = "image: '" + dockertest.Image + "', " + payload
	}
	start := func() *program {
		_, dir := testConfig(t, configuration)
		return startProgram(t, b, "start", "--config", filepath.Join(dir, "worker.yml"))
	}
	p := start()
	id := b.create(t, "taskQueueId: "+pool+"\nretries: 1\nscopes: ["+tt.scopes+"]\npayload: {"+payload+"}")
	eventually(t, "the task's progress", func() bool {
		return prints(t, filepath.Join(dir, "state", "logs"), cmp.Or(tt.ready, "ready\n"))
	})

	begin := time.Now()
	if err := p.cmd.Process.Signal(tt.signal); err != nil {
		t.Fatal(err)
	}
	var status client.Status
	eventually(t, "a resolution", func() bool {
		var err error
		if status, err = b.queue.Status(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return status.Runs[0].ReasonResolved != ""
	})
	reported := time.Since(begin)
	err := p.cmd.Wait()
	exited := time.Since(begin)
	t.Logf("reported after %v, exited after %v", reported, exited)

	if status.State != tt.state || status.Runs[0].ReasonResolved != tt.reason {
		t.Errorf("task is %s (%s), want %s (%s)", status.State, status.Runs[0].ReasonResolved, tt.state, tt.reason)
	}
	if tt.signal == syscall.SIGTERM && reported > time.Second {
		t.Errorf("it took %v until the queue knew, want less than 1s", reported)
	}
	if err != nil || exited > tt.exited {
		t.Errorf("worker exits after %v with %v; its log:\n%s", exited, err, p.stderr)
	}
	expectNoProcess(t, "3602.5")
	tt.checkSaved(t, b, task.RunID{Task: id})
	if tt.next == "" {
		return
	}
	next := start()
	eventually(t, "the next run", func() bool {
		status, err := b.queue.Status(t.Context(), id)
		return err == nil && len(status.Runs) == 2 && status.State == tt.next
	})
	if err := next.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := next.cmd.Wait(); err != nil {
		t.Errorf("the next worker exits with %v; its log:\n%s", err, next.stderr)
	}
}

// checkSaved checks what is left of the run that was interrupted.
func (tt terminating) checkSaved(t *testing.T, b *bench, id task.RunID) {
	t.Helper()
	log, _ := b.artifact(t, id, backingLog)
	rest := log.content
	for _, text := range tt.log {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			t.Errorf("log lacks %q, in its place:\n%s", text, log.content)
		}
		rest = after
	}
	for name, text := range tt.artifacts {
		a, ok := b.artifact(t, id, name)
		if ok != (text != "") || !strings.HasPrefix(a.content, text) {
			t.Errorf("artifact %s is there: %t, with %q; want %q; log:\n%s", name, ok, a.content, text, log.content)
		}
	}
}

// prints reports whether a log in a directory of the worker's has a text.
func prints(t *testing.T, dir, text string) bool {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(logs, func(name string) bool {
		log, err := os.ReadFile(name)
		return err == nil && strings.Contains(string(log), text)
	})
}
