package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcsecrets"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcworkermanager"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

const (
	pool       = "proj-test/ec2"
	backingLog = "public/logs/live_backing.log"
)

// deployment is a deployment whose worker-manager has requested an instance, and
// the metadata service of that.
type deployment struct {
	server   *devqueue.Server
	queue    *tcqueue.Queue
	manager  *tcworkermanager.WorkerManager
	metadata *metadata
	dir      string // of the worker
}

// newDeployment requests an instance for a pool whose definition and secret have
// a configuration.
func newDeployment(t *testing.T, definition, secret string) *deployment {
	t.Helper()
	dir, err := os.MkdirTemp("", "ec2-spot-worker-") //nolint:usetesting // tasks' users must be able to pass through it
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, shut, err := devqueue.Open(t.Context(), devqueue.Config{Dir: filepath.Join(dir, "queue")}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shut)
	root := &tcclient.Credentials{ClientID: server.Credentials().ClientID, AccessToken: server.Credentials().AccessToken}
	d := &deployment{
		server: server, queue: tcqueue.New(root, server.RootURL()), manager: tcworkermanager.New(root, server.RootURL()), dir: dir,
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	secrets := tcsecrets.New(root, server.RootURL())
	d.queue.HTTPClient, d.manager.HTTPClient, secrets.HTTPClient = &http.Client{Transport: transport}, &http.Client{Transport: transport}, &http.Client{Transport: transport}

	_, err = d.manager.CreateWorkerPool(pool, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "aws", Description: "d", Owner: "owner@example.com",
		Config: json.RawMessage(`{"workerConfig": {"config": ` + definition + `}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.manager.CreateWorker(pool, mockRegion, mockInstance, &tcworkermanager.WorkerCreationUpdateRequest{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Capacity: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = secrets.Set("worker-pool:"+pool, &tcsecrets.Secret{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Secret: json.RawMessage(`{"config": ` + secret + `}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	userData, err := json.Marshal(map[string]any{
		"rootUrl": server.RootURL(), "workerPoolId": pool, "providerId": "aws", "workerGroup": mockRegion, "workerConfig": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.metadata = newMetadata(t, userData)
	return d
}

// program is the worker in a process of its own, as systemd starts it.
type program struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	ready  func(t *testing.T)
}

// lockedBuffer may be read while the program writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts the worker, with variables of the environment that take the place
// of those which it has here.
func (d *deployment) start(t *testing.T, environ ...string) *program {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &program{cmd: exec.CommandContext(t.Context(), "/proc/self/exe", "start"), stderr: &lockedBuffer{}}
	p.cmd.Args[0] = app
	p.cmd.Env = append(append(os.Environ(),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT="+d.metadata.URL,
		"EC2_SPOT_WORKER_NATIVE_DIR="+filepath.Join(d.dir, "native"),
		"EC2_SPOT_WORKER_DOCKER_HOST="+daemon.Host(),
		"EC2_SPOT_WORKER_CACHES_TABLE="+filepath.Join(d.dir, "caches.json"),
		"EC2_SPOT_WORKER_LIFECYCLE_ATEND=remove", // the machine of the test stays
		"NOTIFY_SOCKET="+socket,
		"JOURNAL_STREAM=1:2",
		"WATCHDOG_USEC=20000000",
	), environ...)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the worker says:\n%s", p.stderr)
		}
	})
	p.ready = func(t *testing.T) {
		t.Helper()
		message := make([]byte, 100)
		for {
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(message)
			if err != nil {
				t.Fatalf("systemd does not hear that the worker is ready: %v; its log:\n%s", err, p.stderr)
			}
			if string(message[:n]) == "READY=1" {
				return
			}
		}
	}
	return p
}

// create creates a task with a payload, which is JSON.
func (d *deployment) create(t *testing.T, payload string) (id string) {
	t.Helper()
	id = slugid.Nice()
	now := time.Now()
	_, err := d.queue.CreateTask(id, &tcqueue.TaskDefinitionRequest{
		TaskQueueID: pool, Created: tcclient.Time(now), Deadline: tcclient.Time(now.Add(time.Hour)), Expires: tcclient.Time(now.Add(2 * time.Hour)),
		SchedulerID: "test", TaskGroupID: id, Priority: "lowest", Requires: "all-completed",
		Metadata: tcqueue.TaskMetadata{Name: t.Name(), Description: "d", Owner: "owner@example.com", Source: "https://example.com"},
		Payload:  json.RawMessage(payload), Extra: json.RawMessage(`{}`), Tags: map[string]string{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// run returns the state of the task's first run, and its reason.
func (d *deployment) run(t *testing.T, id string) (state, reason string) {
	t.Helper()
	status, err := d.queue.Status(id)
	if err != nil {
		t.Fatal(err)
	}
	first := status.Status.Runs[0]
	return first.State, first.ReasonResolved
}

// artifact returns the content of an artifact of a task's first run, and whether
// there is one.
func (d *deployment) artifact(t *testing.T, id, name string) (content string, ok bool) {
	t.Helper()
	location, err := d.queue.GetArtifact_SignedURL(id, "0", name, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Get(location.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", false
	}
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), true
}

// hasArtifact reports whether a task's first run has an artifact by now.
func (d *deployment) hasArtifact(t *testing.T, id, name string) bool {
	t.Helper()
	list, err := d.queue.ListArtifacts(id, "0", "", "")
	if err != nil {
		return false // the task has no run yet
	}
	for _, a := range list.Artifacts {
		if a.Name == name {
			return true
		}
	}
	return false
}

// gone waits until the worker has exited, and checks that it was removed.
func (d *deployment) gone(t *testing.T, p *program) {
	t.Helper()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the worker exits with %v; its log:\n%s", err, p.stderr)
	}
	w, err := d.manager.Worker(pool, mockRegion, mockInstance)
	if err != nil || w.State != "stopped" {
		t.Errorf("the worker is %s, %v, want stopped", w.State, err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "native", "state", "registration.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the registration of a worker that was removed is there: %v", err)
	}
}

// From user data to registration, and from a spot notice to the end: the queue
// knows within a second that the task is interrupted, and what the task wants
// saved is saved.
func TestSpotInterruption(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pool    string // what is configured
		payload string
		ready   func(t *testing.T, d *deployment, id string) bool
		saved   map[string]string // artifacts
	}{
		{
			name: "while a command runs",
			payload: `{
				"maxRunTime": 600,
				"command": [["/bin/sh", "-c", "echo begun; echo half >half; trap 'echo told; exit 1' TERM; sleep 3614.5 & wait"]],
				"artifacts": [{"type": "file", "path": "half", "name": "public/half", "onInterruption": "upload"}]
			}`,
			ready: func(t *testing.T, _ *deployment, _ string) bool {
				t.Helper()
				return len(processes(t, "3614.5")) == 1
			},
			saved: map[string]string{"public/half": "half\n"},
		},
		{
			name: "while a container runs",
			pool: `, "engine": "docker", "docker": {"egress": "none", "pull": "missing"}`,
			payload: `{
				"maxRunTime": 600, "image": "` + dockertest.Image + `",
				"command": [["/bin/sh", "-c", "echo begun; echo half >/half; trap 'echo told; exit 1' TERM; sleep 3604.75 & wait"]],
				"artifacts": [{"type": "file", "path": "/half", "name": "public/half", "onInterruption": "upload"}]
			}`,
			ready: func(t *testing.T, _ *deployment, _ string) bool {
				t.Helper()
				return len(processes(t, "3604.75")) == 1
			},
			saved: map[string]string{"public/half": "half\n"},
		},
		{
			name: "while an artifact of 1 GiB is pending",
			payload: `{
				"maxRunTime": 600,
				"command": [["/usr/bin/truncate", "--size=1G", "big"], ["/bin/sh", "-c", "echo begun; echo half >half"]],
				"artifacts": [
					{"type": "file", "path": "big", "name": "public/big"},
					{"type": "file", "path": "half", "name": "public/half", "onInterruption": "upload"}
				]
			}`,
			ready: func(t *testing.T, d *deployment, id string) bool {
				t.Helper()
				return d.hasArtifact(t, id, "public/half")
			},
			saved: map[string]string{"public/half": "half\n"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDeployment(t, `{"worker": {"capacity": 1}`+tt.pool+`}`, `{"worker": {"pollInterval": "1s"}}`)
			p := d.start(t)
			p.ready(t)
			id := d.create(t, tt.payload)
			eventually(t, "the task's progress", func() bool { return tt.ready(t, d, id) })

			d.metadata.interrupt(t, "spot", "--action=terminate")
			noticed := time.Now()
			var state, reason string
			eventually(t, "a resolution", func() bool {
				state, reason = d.run(t, id)
				return state != "running"
			})
			reported := time.Since(noticed)
			d.gone(t, p)
			t.Logf("reported after %v, gone after %v", reported, time.Since(noticed))

			if state != "exception" || reason != "worker-shutdown" {
				t.Errorf("task is %s (%s), want exception (worker-shutdown)", state, reason)
			}
			if reported > time.Second {
				t.Errorf("it took %v until the queue knew, want less than 1s", reported)
			}
			log, _ := d.artifact(t, id, backingLog)
			for _, want := range []string{"begun\n", "worker shutdown: spot interruption: terminate", mockRegion, mockInstance, "m4.xlarge"} {
				if !strings.Contains(log, want) {
					t.Errorf("log lacks %q:\n%s", want, log)
				}
			}
			for name, want := range tt.saved {
				if got, ok := d.artifact(t, id, name); !ok || got != want {
					t.Errorf("artifact %s is %q, %t, want %q", name, got, ok, want)
				}
			}
			if !strings.Contains(p.stderr.String(), `<6>{"time":`) {
				t.Errorf("the log is not in the journal's form:\n%s", p.stderr)
			}
		})
	}
}

// Whatever takes the instance away ends the worker.
func TestInterruptions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		mock  []string
		cause string
	}{
		{"a scheduled event", []string{"events", "--code=instance-retirement", "--state=active", "--not-before=2100-01-01T00:00:00Z"}, "scheduled event: instance-retirement"},
		{"the auto-scaling group", []string{"asglifecycle"}, "auto-scaling: Terminated"},
		{"a recommendation", []string{"spot", "--mock-delay-sec=3600"}, "rebalance recommendation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDeployment(t, `{}`, `{}`)
			p := d.start(t)
			p.ready(t)
			d.metadata.interrupt(t, tt.mock...)
			d.gone(t, p)
			if !strings.Contains(p.stderr.String(), tt.cause) {
				t.Errorf("the log does not say %q:\n%s", tt.cause, p.stderr)
			}
		})
	}
}

// A worker that is killed is the same one when it starts again, although an
// instance registers only once, and goes on with its task.
func TestRestart(t *testing.T) {
	d := newDeployment(t, `{}`, `{}`)
	first := d.start(t)
	first.ready(t)
	id := d.create(t, `{"maxRunTime": 600, "command": [["/bin/sh", "-c", "echo begun; sleep 3604.25; echo done"]]}`)
	eventually(t, "the task to run", func() bool { return len(processes(t, "3604.25")) == 1 })
	if err := first.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // it was killed

	second := d.start(t)
	second.ready(t)
	for _, pid := range processes(t, "3604.25") {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the task's completion", func() bool {
		state, _ := d.run(t, id)
		return state == "completed"
	})
	log, _ := d.artifact(t, id, backingLog)
	if !strings.Contains(log, "begun\n") || !strings.Contains(log, "done\n") {
		t.Errorf("log is not whole:\n%s", log)
	}
	// A rebalance recommendation comes with the spot notice that is years away.
	d.metadata.interrupt(t, "spot", "--time=2100-01-01T00:00:00Z")
	d.gone(t, second)
}

// processes returns the processes that have arg among their arguments.
func processes(t *testing.T, arg string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), arg) {
			continue // it has ended, or is another one
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}

// A worker without tasks removes itself, and turns its machine off.
func TestIdle(t *testing.T) {
	d := newDeployment(t, `{"lifecycle": {"maxIdle": "1s"}}`, `{}`)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "shutdown"), []byte("#!/bin/sh\necho \"$@\" >"+bin+"/arguments\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := d.start(t, "EC2_SPOT_WORKER_LIFECYCLE_ATEND=powerOff", "PATH="+bin+":"+os.Getenv("PATH"))
	d.gone(t, p)
	if !strings.Contains(p.stderr.String(), "no task for 1s") {
		t.Errorf("the log does not say why:\n%s", p.stderr)
	}
	arguments, err := os.ReadFile(filepath.Join(bin, "arguments"))
	if want := "-h now taskcluster-worker: the worker has stopped\n"; err != nil || string(arguments) != want {
		t.Errorf("shutdown is called with %q, %v, want %q", arguments, err, want)
	}
}

// An instance that something else than worker-manager has launched, by a script,
// is a static worker.
func TestStaticWorker(t *testing.T) {
	d := newDeployment(t, `{}`, `{}`)
	d.metadata.stop()
	d.metadata = newMetadata(t, []byte("#!/bin/bash\nset -e\n"))
	const static, secret = "proj-test/static", "a_secret_of_44_characters_as_is_due_00000000"
	_, err := d.manager.CreateWorkerPool(static, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "static", Description: "d", Owner: "owner@example.com", Config: json.RawMessage(`{}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.manager.CreateWorker(static, "here", mockInstance, &tcworkermanager.WorkerCreationUpdateRequest{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Capacity: 1, ProviderInfo: json.RawMessage(`{"staticSecret": "` + secret + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}

	unconfigured := d.start(t)
	_ = unconfigured.cmd.Wait() // its code is looked at below
	for _, want := range []string{
		"neither is rootURL configured, nor does the user data have rootUrl", "neither is worker.pool", "neither is provider.id",
	} {
		if code := unconfigured.cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(unconfigured.stderr.String(), want) {
			t.Errorf("the worker exits with %d, want %d; its log lacks %q:\n%s", code, exitFailed, want, unconfigured.stderr)
		}
	}

	p := d.start(t, "TASKCLUSTER_ROOT_URL="+d.server.RootURL(), "EC2_SPOT_WORKER_WORKER_POOL="+static, "EC2_SPOT_WORKER_WORKER_GROUP=here",
		"EC2_SPOT_WORKER_PROVIDER_ID=static", "EC2_SPOT_WORKER_PROVIDER_SECRET="+secret)
	p.ready(t)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the worker exits with %v; its log:\n%s", err, p.stderr)
	}
	if w, err := d.manager.Worker(static, "here", mockInstance); err != nil || w.State != "stopped" {
		t.Errorf("the worker is %s, %v, want stopped", w.State, err)
	}
}

// What a pool configures wrongly is shown to its operators.
func TestPoolThatIsConfiguredWrongly(t *testing.T) {
	d := newDeployment(t, `{"worker": {"capcity": 2}}`, `{}`)
	p := d.start(t)
	err := p.cmd.Wait()
	if got, want := p.cmd.ProcessState.ExitCode(), 64; got != want {
		t.Errorf("the worker exits with %d, %v, want %d; its log:\n%s", got, err, want, p.stderr)
	}
	list, err := d.manager.ListWorkerPoolErrors(pool, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(list.WorkerPoolErrors) != 1 || !strings.Contains(list.WorkerPoolErrors[0].Description, "did you mean worker.capacity?") {
		t.Errorf("errors are %+v", list.WorkerPoolErrors)
	}
}
