package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcsecrets"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcworkermanager"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// staticSecret is what static workers prove their identity by.
const staticSecret = "a_secret_of_44_characters_as_is_due_00000000"

// managed is a pool at the worker-manager of a bench, with one static worker,
// "g/w", whose credentials are good for so many seconds.
type managed struct {
	*bench
	pool    string
	root    *tcclient.Credentials
	manager *tcworkermanager.WorkerManager
	dir     string // of the worker's process

	provider string // more of the section in the configuration
}

func newManaged(t *testing.T, b *bench, pool, life, workerConfig string) *managed {
	t.Helper()
	creds := b.server.Credentials()
	m := &managed{bench: b, pool: pool, root: &tcclient.Credentials{ClientID: creds.ClientID, AccessToken: creds.AccessToken}}
	m.manager = tcworkermanager.New(m.root, b.server.RootURL())
	_, err := m.manager.CreateWorkerPool(pool, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "static", Description: "d", Owner: "owner@example.com",
		Config: json.RawMessage(`{"workerConfig":` + workerConfig + `,"lifecycle":{"reregistrationTimeout":` + life + `}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.manager.CreateWorker(pool, "g", "w", &tcworkermanager.WorkerCreationUpdateRequest{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Capacity: 1, ProviderInfo: json.RawMessage(`{"staticSecret":"` + staticSecret + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.dir = filepath.Join(b.dir, "..", filepath.Base(pool))
	return m
}

// setSecret sets the secret of the pool.
func (m *managed) setSecret(t *testing.T, secret string) {
	t.Helper()
	err := tcsecrets.New(m.root, m.server.RootURL()).Set("worker-pool:"+m.pool, &tcsecrets.Secret{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Secret: json.RawMessage(secret),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// configure writes the configuration of the worker, with more in YAML, and
// returns its file.
func (m *managed) configure(t *testing.T, more string) string {
	t.Helper()
	_, dir := testConfig(t, "worker: {pool: "+m.pool+", group: g, id: w}\nnative: {dir: "+m.dir+"}\n"+
		"provider: {type: static, id: static, secret: "+staticSecret+m.provider+"}\n"+more)
	return filepath.Join(dir, "worker.yml")
}

// state returns what worker-manager thinks of the worker.
func (m *managed) state(t *testing.T) string {
	t.Helper()
	w, err := m.manager.Worker(m.pool, "g", "w")
	if err != nil {
		t.Fatal(err)
	}
	return w.State
}

// errors returns the kinds and descriptions of what was reported.
func (m *managed) errors(t *testing.T) string {
	t.Helper()
	list, err := m.manager.ListWorkerPoolErrors(m.pool, "", "")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range list.WorkerPoolErrors {
		told = append(told, e.Kind+": "+e.Description)
	}
	return strings.Join(told, "\n")
}

// begin creates a task for the pool, whose command has an argument that no other
// has, and waits until it runs.
func (m *managed) begin(t *testing.T, script, mark string) task.ID {
	t.Helper()
	id := m.create(t, "taskQueueId: "+m.pool+"\nretries: 0\npayload: {maxRunTime: 60, command: [[/bin/sh, -c, '"+script+"; true', '"+mark+"']]}")
	eventually(t, "the task's process", func() bool { return len(processes(t, mark)) > 0 })
	return id
}

// quick creates a task that may well have ended before anybody looks.
func (m *managed) quick(t *testing.T) task.ID {
	t.Helper()
	return m.create(t, "taskQueueId: "+m.pool+"\nretries: 0\npayload: {maxRunTime: 60, command: [[/bin/true]]}")
}

// resolution waits for the end of a task.
func (b *bench) resolution(t *testing.T, id task.ID) client.Status {
	t.Helper()
	var status client.Status
	eventually(t, "a resolution", func() bool {
		var err error
		status, err = b.queue.Status(t.Context(), id)
		return err == nil && resolved(status.State)
	})
	return status
}

// expect waits for the end of a task, which is to be of a kind.
func (b *bench) expectState(t *testing.T, id task.ID, want string) {
	t.Helper()
	status := b.resolution(t, id)
	last := status.Runs[len(status.Runs)-1]
	if got := strings.TrimSpace(status.State + " " + last.ReasonResolved); got != want {
		t.Errorf("task is %s, want %s", got, want)
	}
}

// ended waits for the end of a worker's process, which is to be a success.
func (p *program) ended(t *testing.T) {
	t.Helper()
	if err := p.end(t); err != nil {
		t.Errorf("the worker exits with %v:\n%s", err, p.stderr)
	}
}

// end waits for the end of a worker's process, whatever that is.
func (p *program) end(t *testing.T) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-done
		t.Fatalf("the worker goes on:\n%s", p.stderr)
		return nil
	}
}

// A worker registers, is configured by its pool, runs a task for longer than its
// credentials last, is told to drain, and is removed.
func TestRegisteredWorker(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/registered", "3", `{"worker":{"instanceType":"m5.pool"},"log":{"level":"debug"}}`)
	m.setSecret(t, `{"config":{"worker":{"instanceType":"m5.secret"},"lifecycle":{"atEnd":"remove","drainInterval":"50ms"}}}`)
	file := m.configure(t, "")
	p := startProgram(t, b, "start", "--config", file)
	id := m.begin(t, "echo on $TASKCLUSTER_INSTANCE_TYPE; sleep 6; echo done", "6001.5")

	if out, code := drainProgram(t, file); code != 0 || !strings.Contains(out, "stops once those that run are finished") {
		t.Errorf("drain exits with %d:\n%s", code, out)
	}
	b.expectState(t, id, "completed completed")
	p.ended(t)
	log, _ := b.artifact(t, task.RunID{Task: id}, backingLog)
	for _, want := range []string{"on m5.secret\n", "done\n"} {
		if !strings.Contains(log.content, want) {
			t.Errorf("the task's log lacks %q:\n%s", want, log.content)
		}
	}
	for _, want := range []string{"credentials are renewed", "drain file", "worker removed"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("the worker's log lacks %q:\n%s", want, p.stderr)
		}
	}
	if strings.Contains(p.stderr.String(), staticSecret) {
		t.Errorf("the secret is in the worker's log:\n%s", p.stderr)
	}
	if got := m.state(t); got != "stopped" {
		t.Errorf("worker-manager thinks that the worker is %s", got)
	}
	if got := m.errors(t); got != "" {
		t.Errorf("errors were reported:\n%s", got)
	}
}

// A worker that is killed goes on with its task, and with its registration, when
// it starts again.
func TestRegisteredWorkerIsSucceeded(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/succeeded", "3", `{}`)
	file := m.configure(t, "lifecycle: {drainInterval: 50ms}")
	first := startProgram(t, b, "start", "--config", file)
	id := m.begin(t, "sleep 4", "6002.5")
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // it was killed
	second := startProgram(t, b, "start", "--config", file)
	b.expectState(t, id, "completed completed")
	if out, code := drainProgram(t, file); code != 0 {
		t.Errorf("drain exits with %d:\n%s", code, out)
	}
	second.ended(t)
	if want := "worker is registered already"; !strings.Contains(second.stderr.String(), want) {
		t.Errorf("the worker's log lacks %q:\n%s", want, second.stderr)
	}
	if got := m.state(t); got != "running" {
		t.Errorf("a worker whose machine stays is %s", got)
	}
}

// A registered worker that is upgraded in place goes on with its task, and with
// its registration: most providers would not let it register again.
func TestRegisteredWorkerIsUpgraded(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/upgraded", "3", `{"lifecycle":{"atEnd":"remove","drainInterval":"50ms"}}`)
	file := m.configure(t, "")
	p := startProgram(t, b, "start", "--config", file)
	id := m.begin(t, "sleep 5", "6010.5")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	b.expectState(t, id, "completed completed")
	if got := m.state(t); got != "running" {
		t.Errorf("a worker that made way is %s", got)
	}
	if out, code := drainProgram(t, file); code != 0 {
		t.Errorf("drain exits with %d:\n%s", code, out)
	}
	p.ended(t)
	p.says(t, "worker makes way", "worker is registered already", "worker removed")
}

// Worker-manager wants a worker to go, which finishes its task first.
func TestUnneededWorkerDrains(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/unneeded", "3600", `{}`)
	p := startProgram(t, b, "start", "--config", m.configure(t, "lifecycle: {askManager: 1s}"))
	id := m.begin(t, "sleep 3", "6003.5")
	if err := m.manager.RemoveWorker(m.pool, "g", "w"); err != nil {
		t.Fatal(err)
	}
	p.ended(t)
	b.expectState(t, id, "completed completed")
	if want := "worker-manager: worker is stopped"; !strings.Contains(p.stderr.String(), want) {
		t.Errorf("the worker's log lacks %q:\n%s", want, p.stderr)
	}
}

// What keeps a worker from working is told to whoever starts it and, once it is
// registered, to the operators of its pool.
func TestRegisteredWorkerThatCannotStart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	for name, tt := range map[string]struct{ pool, config, more, says, reports string }{
		"the pool's configuration is wrong": {
			"proj-test/wrong", `{"worker":{"capacity":"many"},"rootURL":"https://tc.example.com","nonsense":1}`, "",
			"\ndc-linux-worker: worker pool proj-test/wrong: worker.capacity: expected a whole number from 1 to 250, got the text \"many\"\n",
			"startup-error: worker pool proj-test/wrong: nonsense: unknown key",
		},
		"the pool decides what it cannot": {
			"proj-test/bold", `{"worker":{"pool":"a/b","capacity":2},"provider":{"type":"none"}}`, "",
			"dc-linux-worker: worker pool proj-test/bold: provider.type: has to be set on the machine, which needs it before it asks its pool\n" +
				"dc-linux-worker: worker pool proj-test/bold: worker.pool: has to be set on the machine",
			"startup-error: worker pool proj-test/bold: provider.type: has",
		},
		"the engine does not work": {
			"proj-test/broken", `{"engine":"docker","docker":{"host":"unix:///nowhere.sock"}}`, "",
			"dc-linux-worker: docker", "startup-error: docker",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, b, tt.pool, "3600", tt.config)
			p := startProgram(t, b, "start", "--config", m.configure(t, tt.more))
			if err := p.end(t); err == nil {
				t.Error("the worker exits with 0")
			}
			if !strings.Contains(p.stderr.String(), tt.says) {
				t.Errorf("the worker does not say:\n%s\nbut:\n%s", tt.says, p.stderr)
			}
			if got := m.errors(t); !strings.HasPrefix(got, tt.reports) {
				t.Errorf("the worker does not report:\n%s\nbut:\n%s", tt.reports, got)
			}
		})
	}
}
