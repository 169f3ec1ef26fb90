package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// drainProgram runs "drain" in a process of its own, and returns what it says.
func drainProgram(t *testing.T, file string, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"drain", "--config", file}, args...)...)
	cmd.Args[0] = "dc-linux-worker"
	out, err := cmd.CombinedOutput()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), failed.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// A first drain lets the task finish, a second one does not.
func TestDrainThatAborts(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/aborted", "3600", `{}`)
	file := m.configure(t, "lifecycle: {drainInterval: 50ms}")
	p := startProgram(t, b, "start", "--config", file)
	id := m.begin(t, "sleep 3600", "6004.5")
	for _, args := range [][]string{nil, {"--abort"}} {
		if out, code := drainProgram(t, file, args...); code != 0 {
			t.Errorf("drain %v exits with %d:\n%s", args, code, out)
		}
	}
	b.expectState(t, id, "exception worker-shutdown")
	p.ended(t)
	expectNoProcess(t, "6004.5")
	if out, code := drainProgram(t, file, "--timeout", "200ms"); code != 1 || !strings.Contains(out, "none runs, or it has stopped already") {
		t.Errorf("drain of a worker that has stopped exits with %d:\n%s", code, out)
	}
}

// A worker whose machine is to be turned off after its last task. What takes the
// place of shutdown writes down what it is told.
func TestLastTaskTurnsTheMachineOff(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/last", "3600", `{}`)
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"$@\" >>" + filepath.Join(bin, "told") + "\n"
	if err := os.WriteFile(filepath.Join(bin, "shutdown"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	p := startProgram(t, b, "start", "--config", m.configure(t, "lifecycle: {maxTasks: 2, atEnd: powerOff}"))
	for range 2 {
		b.expectState(t, m.quick(t), "completed completed")
	}
	p.ended(t)
	told, err := os.ReadFile(filepath.Join(bin, "told"))
	if want := "-h now taskcluster-worker: the worker has stopped\n"; err != nil || string(told) != want {
		t.Errorf("shutdown was told %q, %v; want %q; the worker says:\n%s", told, err, want, p.stderr)
	}
	if got := m.state(t); got != "stopped" {
		t.Errorf("worker-manager thinks that the worker is %s", got)
	}
}

func TestIdleWorkerStops(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/idle", "3600", `{}`)
	start := time.Now()
	p := startProgram(t, b, "start", "--config", m.configure(t, "lifecycle: {maxIdle: 2s}"))
	id := m.begin(t, "sleep 3", "6007.5")
	p.ended(t)
	b.expectState(t, id, "completed completed")
	if took := time.Since(start); took < 5*time.Second {
		t.Errorf("the worker was there for %v, want at least the time of the task and 2s", took)
	}
	if want := "no task for 2s"; !strings.Contains(p.stderr.String(), want) {
		t.Errorf("the worker's log lacks %q:\n%s", want, p.stderr)
	}
}

// A machine that is broken runs no more tasks, and its operators are told.
func TestBrokenMachineGivesUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/sick", "3600", `{}`)
	p := startProgram(t, b, "start", "--config", m.configure(t, "lifecycle: {atEnd: remove}"))
	b.expectState(t, m.quick(t), "completed completed")
	sandboxes := filepath.Join(m.dir, "sandboxes")
	if err := os.RemoveAll(sandboxes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sandboxes, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Some sandboxes may have been prepared before.
	for range 20 {
		m.quick(t)
	}
	if err := p.end(t); err == nil {
		t.Error("the worker exits with 0")
	}
	if got, want := m.errors(t), "too-many-errors: worker: too many internal errors in a row"; got != want {
		t.Errorf("reported %q, want %q; the worker says:\n%s", got, want, p.stderr)
	}
	if got := m.state(t); got != "stopped" {
		t.Errorf("worker-manager thinks that the worker is %s", got)
	}
}

// An instance that is preempted: its task is reported within a second, so that
// it runs again elsewhere.
func TestPreemptedInstance(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/preempted", "3600", `{}`)
	c := newCloud(t)
	m.provider = ", metadata: '" + c.url + "'"
	p := startProgram(t, b, "start", "--config", m.configure(t, "lifecycle: {preemption: google}"))
	id := m.begin(t, "sleep 3600", "6009.5")
	c.preempt()
	start := time.Now()
	b.expectState(t, id, "exception worker-shutdown")
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v until the queue knew, want less than 1s", took)
	}
	p.ended(t)
	expectNoProcess(t, "6009.5")
	p.says(t, "the instance is preempted", "worker stopped")
}

// A worker that is told to stop, or to stop once its tasks have finished, while
// nobody answers its registration.
func TestStopsWhileItRegisters(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			stopWhileRegistering(t, sig)
		})
	}
}

func stopWhileRegistering(t *testing.T, sig syscall.Signal) {
	t.Helper()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/registering", "3600", `{}`)
	asked := make(chan struct{}, 10)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body) // which is when the end of the connection is noticed
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	p := startProgramIn(t, []string{"TASKCLUSTER_ROOT_URL=" + silent.URL}, "start", "--config", m.configure(t, ""))
	<-asked
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := p.end(t); err == nil {
		t.Error("the worker exits with 0")
	}
	if got, want := p.stderr.String(), "dc-linux-worker: stopped before the worker has started\n"; got != want {
		t.Errorf("the worker says %q, want %q", got, want)
	}
}

// A worker that is told to stop, and then hurried, while its Docker daemon takes
// calls but answers none.
func TestStopsWhileDockerHangs(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	socket := filepath.Join(t.TempDir(), "docker.sock")
	daemon, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Close() })
	dir := t.TempDir()
	file := filepath.Join(dir, "worker.yml")
	content := "worker: {pool: proj/test, group: g, id: w}\nengine: docker\ndocker: {host: 'unix://" + socket + "'}\nnative: {dir: " + dir + "}\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, b, "start", "--config", file)
	call, err := daemon.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(t); err == nil {
		t.Error("the worker exits with 0")
	}
	p.says(t, "stopped before the worker has started")
}
