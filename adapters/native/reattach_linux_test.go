package native

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// detach ends an engine as though its process were, and returns the next one.
func detach(t *testing.T, e *Engine) *Engine {
	t.Helper()
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	return open(t, e.config)
}

// reattach takes over the run of tasks that start has started.
func reattach(t *testing.T, e *Engine, log *tasklog.Log, from tasklog.Position) engine.Reattached {
	t.Helper()
	s, err := e.Reattach(t.Context(), engine.Options{Log: log}, from)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBinaryOutputSurvivesReattachment(t *testing.T) {
	e := open(t, Config{})
	var logs tasklogtest.Memory
	var id task.RunID
	recording, err := logs.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.NewBuilder(t.Context(), engine.Options{
		Payload: payloadOf(t, []string{"sh", "-c", "head -c 20000000 /dev/urandom | tee copy"}, []string{"printf", "last"}),
		Log:     tasklog.New(recording),
	})
	if err != nil {
		t.Fatal(err)
	}
	started, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := started
	for range 5 {
		// Any output will do, to be in the middle of it.
		f, err := recording.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		e = detach(t, e)
		resumed, at, err := logs.Resume(id)
		if err != nil {
			t.Fatal(err)
		}
		recording = resumed
		s = reattach(t, e, tasklog.New(resumed), at)
	}
	r := wait(t, s)
	written, err := fs.ReadFile(r.FS(), path.Join(r.Dir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	log := []byte(logs.Text(id))
	if !r.Result().Success || len(written) != 20_000_000 || !bytes.Contains(log, written) {
		t.Errorf("%+v: of %d bytes written, the log of %d bytes lacks some", r.Result(), len(written), len(log))
	}
	if n := bytes.Count(log, []byte("Executing command 1")); n != 1 || !bytes.Contains(log, []byte("\nlast\n")) {
		t.Errorf("the second command is in the log %d times", n)
	}
}

func TestTaskEndsWhereNoWorkerComes(t *testing.T) {
	const mark = "native-no-worker-comes"
	e := open(t, Config{OrphanTimeout: 20 * time.Millisecond})
	log := &safeBuffer{}
	start(t, e, log, []string{"sh", "-c", "setsid sh -c 'sleep 1000000; :' " + mark + " & echo ready; wait"})
	log.await(t, "ready\n")
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, "the task ends", func() bool { return len(processes(t, mark)) == 0 })
	e = open(t, e.config)
	if runs, err := e.Orphans(t.Context()); err != nil || len(runs) > 0 {
		t.Errorf("there are orphans: %v, %v", runs, err)
	}
}

func TestUserStaysTheTasks(t *testing.T) {
	e := open(t, Config{Warm: 1})
	log := &safeBuffer{}
	start(t, e, log, []string{"sh", "-c", "echo user $(id -un); echo ready; exec sleep 1000000"})
	log.await(t, "ready\n")
	lines := strings.Split(log.String(), "\n")
	user := strings.TrimPrefix(lines[slices.Index(lines, "ready")-1], "user ")
	next := detach(t, e)
	if a, err := next.users.claim(t.Context(), user); a != nil || err != nil {
		t.Errorf("the user %s of a running task can be taken: %v", user, err)
	}
	s := reattach(t, next, tasklog.New(log), 0)
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := wait(t, s)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	free := func(a *account) bool { return a.name == user && a.lease != nil }
	if a, err := next.users.claim(t.Context(), user); err != nil || a == nil || !free(a) {
		t.Errorf("the user %s is not given back: %v", user, err)
	} else if err := a.lease.Close(); err != nil {
		t.Error(err)
	}
}

// TestDirectoryIsTheSameHoweverItIsWritten has the next worker configured with
// another spelling of the directory.
func TestDirectoryIsTheSameHoweverItIsWritten(t *testing.T) {
	e := open(t, Config{})
	log := &safeBuffer{}
	start(t, e, log, []string{"sh", "-c", "echo ready; exec sleep 1000000"})
	log.await(t, "ready\n")
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	another := e.config
	another.Dir += "/"
	next := open(t, another)
	s := reattach(t, next, tasklog.New(log), 0)
	if s.(*sandbox).berth.group.Usage().PeakMemory == 0 {
		t.Error("the control group of the task is not found")
	}
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSupervisorOfAnotherVersion has one which this worker does not understand.
func TestSupervisorOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, sandboxesName, "left")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), "sleep", "1000000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := processStart(process.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(processRecord{PID: process.Process.Pid, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, processName), record, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(left, supervisor.ControlSocket))
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(`{"hello": {"Protocol": 99, "Run": {"Task": "fN1SbArXTPSVFNUvaOlinQ", "Run": 3}, "Setup": "new"}}` + "\n"))
			_ = conn.Close()
		}
	}()
	defer func() {
		_ = listener.Close()
		<-served
	}()

	run := task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 3}
	e := open(t, Config{Dir: dir})
	if runs, err := e.Orphans(t.Context()); err != nil || !slices.Equal(runs, []task.RunID{run}) {
		t.Errorf("the orphans are %v, %v", runs, err)
	}
	_, err = e.Reattach(t.Context(), engine.Options{Run: run, Log: tasklog.New(&safeBuffer{})}, 0)
	if err == nil || !strings.Contains(err.Error(), "its supervisor has version 99 of the protocol, and this worker has 1") {
		t.Errorf("Reattach returned %v", err)
	}
	if err := e.Discard(t.Context(), run); err != nil {
		t.Error(err)
	}
	if err := process.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the supervisor ended with %v", err)
	}
}

// TestSupervisorIsOutsideOfTheService looks where service managers look for
// what belongs to a service.
func TestSupervisorIsOutsideOfTheService(t *testing.T) {
	e := open(t, Config{})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "echo ready; sleep 1000000"}).(*sandbox)
	log.await(t, "ready\n")
	group := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if g, ok := strings.CutPrefix(line, "0::"); ok {
				return strings.TrimSpace(g)
			}
		}
		return ""
	}
	own, supervisors := group("/proc/self/cgroup"), group(s.berth.proc("cgroup"))
	if own == supervisors || !strings.HasSuffix(supervisors, "-supervisors") || strings.Count(supervisors, "/") != 1 {
		t.Errorf("the supervisor is in the group %s, and the worker in %s", supervisors, own)
	}
	pid := s.berth.process.Pid
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("the supervisor %d is in the session %d, %v", pid, sid, err)
	}
}
