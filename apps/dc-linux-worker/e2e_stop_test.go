package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// processes returns the ids of the processes that have arg among their arguments.
func processes(t *testing.T, arg string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for field := range bytes.SplitSeq(line, []byte{0}) {
			if string(field) == arg {
				found = append(found, filepath.Base(filepath.Dir(file)))
			}
		}
	}
	return found
}

func expectNoProcess(t *testing.T, arg string) {
	t.Helper()
	if left := processes(t, arg); len(left) > 0 {
		t.Errorf("processes with argument %s are left: %v", arg, left)
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t, "worker: {capacity: 2, pollInterval: 200ms}", devqueue.Config{})
	id := b.create(t, "command: [[/bin/sh, -c, 'setsid sleep 3600.5 & exec sleep 3600.5']]")
	b.cancelRunning(t, id, "3600.5")
}

// cancelRunning cancels a task that has two processes with an argument, and
// checks that they end after the next poll.
func (b *bench) cancelRunning(t *testing.T, id task.ID, argument string) {
	t.Helper()
	eventually(t, "both processes of the task", func() bool { return len(processes(t, argument)) == 2 })
	start := time.Now()
	b.cancel(t, id)
	status := b.await(t, id)
	took := time.Since(start)
	expectNoProcess(t, argument)
	if status.State != "exception" || status.Runs[0].ReasonResolved != "canceled" {
		t.Errorf("task is %s (%s), want exception (canceled)", status.State, status.Runs[0].ReasonResolved)
	}
	if limit := 3 * time.Second; took > limit {
		t.Errorf("cancellation took %v, want less than %v", took, limit)
	}
}

func TestDeadline(t *testing.T) {
	b := newBench(t, "worker: {capacity: 2, pollInterval: 1h}", devqueue.Config{})
	deadline := time.Now().Add(1500 * time.Millisecond)
	id := b.create(t, "deadline: "+deadline.UTC().Format(time.RFC3339Nano)+"\npayload: {maxRunTime: 60, command: [[/bin/sleep, '3600.75']]}")
	eventually(t, "the task's process", func() bool { return len(processes(t, "3600.75")) == 1 })

	select {
	case <-b.reportsOf(id):
	case <-time.After(patience):
		t.Fatal("the task runs on")
	}
	expectNoProcess(t, "3600.75")
	eventually(t, "resolution by the queue", func() bool {
		status, err := b.queue.Status(t.Context(), id)
		return err == nil && status.State == "exception" && status.Runs[0].ReasonResolved == "deadline-exceeded"
	})
}

// program is the worker in a process of its own.
type program struct {
	cmd    *exec.Cmd
	stderr *said
}

// said is what a program has said so far.
type said struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// startProgram starts the worker in a process of its own, on the queue of a
// bench.
func startProgram(t *testing.T, b *bench, args ...string) *program {
	t.Helper()
	return startProgramIn(t, b.environ(), args...)
}

// environ has the variables by which a worker knows the queue of a bench.
func (b *bench) environ() []string {
	creds := b.server.Credentials()
	return []string{
		"TASKCLUSTER_ROOT_URL=" + b.server.RootURL(),
		"TASKCLUSTER_CLIENT_ID=" + creds.ClientID,
		"TASKCLUSTER_ACCESS_TOKEN=" + creds.AccessToken,
	}
}

// startProgramIn starts the worker in a process of its own, with some variables.
func startProgramIn(t *testing.T, environ []string, args ...string) *program {
	t.Helper()
	return startProgramAt(t, "/proc/self/exe", environ, args...)
}

// startProgramAt is startProgramIn for a copy of the worker.
func startProgramAt(t *testing.T, path string, environ []string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.CommandContext(t.Context(), path, args...), stderr: &said{}}
	p.cmd.Args[0] = "dc-linux-worker"
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stderr = p.stderr
	p.begin(t)
	return p
}

// begin starts a program, which ends with the test.
func (p *program) begin(t *testing.T) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Wait() // the end of the test has killed it, if it has not ended before
		if t.Failed() {
			t.Logf("the worker's log:\n%s", p.stderr)
		}
	})
}

// A worker that is killed in the middle of a task: the next process goes on with
// it, and its log lacks and repeats nothing.
func TestKilledWorkerIsSucceeded(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	l, dir := testConfig(t, "worker: {pool: proj-test/killed, group: g, id: w}\nnative: {dir: "+filepath.Join(b.dir, "..", "killed")+"}")
	args := []string{"start", "--config", filepath.Join(dir, "worker.yml")}
	first := startProgram(t, b, args...)
	id := b.create(t, "taskQueueId: "+l.Worker.Pool+"\nretries: 0\npayload: {maxRunTime: 60, command: [[/bin/sh, -c, "+
		"'i=0; while [ $i -lt 40 ]; do echo line$i; i=$((i+1)); sleep 0.1009; done; sleep 0.0625']]}")
	eventually(t, "the task's process", func() bool {
		status, err := b.queue.Status(t.Context(), id)
		return err == nil && status.State == "running" && len(processes(t, "0.1009")) == 1
	})
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // it was killed
	second := startProgram(t, b, args...)
	var status client.Status
	eventually(t, "a resolution", func() bool {
		var err error
		status, err = b.queue.Status(t.Context(), id)
		return err == nil && resolved(status.State)
	})
	if status.State != "completed" || len(status.Runs) != 1 {
		t.Errorf("task is %s (%s) after %d runs; the worker says:\n%s", status.State, status.Runs[0].ReasonResolved, len(status.Runs), second.stderr)
	}
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the worker exits with %v:\n%s", err, second.stderr)
	}
	log, _ := b.artifact(t, task.RunID{Task: id}, "public/logs/live_backing.log")
	for i := range 40 {
		if n := strings.Count(log.content, "\nline"+strconv.Itoa(i)+"\n"); n != 1 {
			t.Errorf("line%d is in the log %d times", i, n)
		}
	}
}
