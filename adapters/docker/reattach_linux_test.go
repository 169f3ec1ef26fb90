package docker_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// succession is a task in a succession of workers.
type succession struct {
	c         docker.Config
	e         *docker.Engine
	logs      tasklogtest.Memory
	o         engine.Options
	recording tasklog.Recording
	sandbox   engine.Sandbox
}

func succeed(t *testing.T, c docker.Config, payload map[string]any) *succession {
	t.Helper()
	s := &succession{c: config(t, daemon, c)}
	s.o = options(t, payload, newRecord())
	s.open(t)
	t.Cleanup(func() {
		if err := s.sandbox.Abort(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.e.Close(); err != nil {
			t.Error(err)
		}
		leavesNothing(t, daemon, s.c)
	})
	recording, err := s.logs.Record(s.o.Run)
	if err != nil {
		t.Fatal(err)
	}
	s.recording, s.o.Log = recording, tasklog.New(recording)
	b, err := s.e.NewBuilder(t.Context(), s.o)
	if err != nil {
		t.Fatal(err)
	}
	if s.sandbox, err = b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *succession) open(t *testing.T) {
	t.Helper()
	e, _, err := docker.New(t.Context(), s.c, newLocalImages, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	s.e = e
}

// detach ends the worker.
func (s *succession) detach(t *testing.T) {
	t.Helper()
	if err := s.e.Detach(); err != nil {
		t.Fatal(err)
	}
}

// reattach goes on with the next worker.
func (s *succession) reattach(t *testing.T) {
	t.Helper()
	s.open(t)
	recording, at, err := s.logs.Resume(s.o.Run)
	if err != nil {
		t.Fatal(err)
	}
	s.recording, s.o.Log = recording, tasklog.New(recording)
	if s.sandbox, err = s.e.Reattach(t.Context(), s.o, at); err != nil {
		t.Fatal(err)
	}
}

// await waits until a text is in the log.
func (s *succession) await(t *testing.T, text string) {
	t.Helper()
	f, err := s.recording.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var log bytes.Buffer
	for buf := make([]byte, 64<<10); !strings.Contains(log.String(), text); {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("the log does not have %q: %v\n%s", text, err, log.String())
		}
		log.Write(buf[:n])
	}
}

func TestBinaryOutputSurvivesReattachment(t *testing.T) {
	const size = 60_000_000
	s := succeed(t, docker.Config{Egress: docker.EgressInternet}, map[string]any{"workdir": "/work", "command": [][]string{
		{"sh", "-c", "head -c 60000000 /dev/urandom | tee copy"}, {"printf", "last"},
	}})
	for range 5 {
		s.await(t, "") // any output will do, to be in the middle of it
		s.detach(t)
		s.reattach(t)
	}
	r := finish(t, s.sandbox)
	written, err := fs.ReadFile(r.FS(), "work/copy")
	if err != nil {
		t.Fatal(err)
	}
	log := []byte(s.logs.Text(s.o.Run))
	if !r.Result().Success || len(written) != size || !bytes.Contains(log, written) {
		t.Errorf("%+v: of %d bytes written, the log of %d bytes lacks some", r.Result(), len(written), len(log))
	}
	if n := bytes.Count(log, []byte("Executing command 1")); n != 1 || !bytes.Contains(log, []byte("\nlast\n")) {
		t.Errorf("the second command is in the log %d times", n)
	}
	// The disk has what was not read yet, at most.
	left, err := filepath.Glob(filepath.Join(s.c.Dir, "transcripts", "*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("the transcripts are %v, %v", left, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(left[0], &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > size/2 {
		t.Errorf("the transcript of %d bytes takes %d on the disk", st.Size, used)
	}
}

// TestStartIsNotTheTasksToChange has a task write all over the header of its
// transcript, but for what is needed to reattach.
func TestStartIsNotTheTasksToChange(t *testing.T) {
	s := succeed(t, docker.Config{Egress: docker.EgressNone}, shell(
		"printf '\\377\\377\\377\\377\\377\\377\\377\\177' | dd of=/.taskcluster/transcript bs=1 seek=24 conv=notrunc; echo rea''dy; sleep 1000000"))
	s.await(t, "ready")
	ready := time.Now()
	s.detach(t)
	s.reattach(t)
	if got := s.sandbox.(engine.Reattached).Started(); got.After(ready) {
		t.Errorf("the task has started at %v, and was running at %v", got, ready)
	}
}

// TestKilledTaskIsKnownAsSuch has the next worker come after a kill that the task
// has ended well after, in the time that it had.
func TestKilledTaskIsKnownAsSuch(t *testing.T) {
	s := succeed(t, docker.Config{Egress: docker.EgressNone, Grace: time.Hour},
		shell("trap 'exit 0' TERM; echo rea''dy; while :; do sleep 0.02; done"))
	s.await(t, "ready")
	if err := s.sandbox.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := s.sandbox.Wait(t.Context()); err != nil || !r.Result().Killed || r.Result().Success {
		t.Fatalf("%+v, %v", r, err)
	}
	s.detach(t)
	s.reattach(t)
	if got := finish(t, s.sandbox).Result(); !got.Killed || got.Success {
		t.Errorf("the next worker has the result %+v", got)
	}
}

// TestKilledWorker has a worker that ends without a word: here, it is still
// there, and does no harm to the next one.
func TestKilledWorker(t *testing.T) {
	payload := shell("i=0; while [ $i -lt 1000 ]; do echo n$i; i=$((i+1)); done; echo rea''dy; tty; while [ ! -e /stop ]; do sleep 0.05; done; echo la''st; exit 4")
	payload["tty"] = true
	s := succeed(t, docker.Config{Egress: docker.EgressInternet}, payload)
	s.await(t, "ready")
	killed, theirs := s.e, s.sandbox
	s.reattach(t)
	shells := s.sandbox.(engine.Shells)
	shell, err := shells.OpenShell(t.Context(), engine.ShellOptions{Command: []string{"touch", "/stop"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := shell.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("the shell ends with %d, %v", code, err)
	}
	if err := shell.Close(); err != nil {
		t.Error(err)
	}
	if got := finish(t, s.sandbox).Result(); got.ExitCode != 4 || got.Wall <= 0 || got.PeakMemory == 0 {
		t.Errorf("result %+v", got)
	}
	log := s.logs.Text(s.o.Run)
	for _, once := range []string{"n0\r\n", "n999\r\n", "/dev/pts/0\r\n", "last\r\n", "Exit Code: 4\n"} {
		if n := strings.Count(log, once); n != 1 {
			t.Errorf("the log has %q %d times", once, n)
		}
	}
	if _, err := theirs.Wait(t.Context()); err != nil {
		t.Errorf("the worker that was there sees %v", err)
	}
	if err := killed.Detach(); err != nil {
		t.Error(err)
	}
	// The next task is in the network of the one that was reattached.
	if r, log := run(t, s.e, map[string]any{"command": [][]string{{"true"}}}); !r.Result().Success {
		t.Errorf("the next task has the result %+v:\n%s", r.Result(), log)
	}
}

// containerOf returns the container that an instance has, and a client.
func containerOf(t *testing.T, instance string) (_ *client.Client, id string) {
	t.Helper()
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	containers, err := c.ContainerList(t.Context(), client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", "taskcluster-worker.instance="+instance),
	})
	if err != nil || len(containers.Items) != 1 {
		t.Fatalf("the containers are %v, %v", containers.Items, err)
	}
	return c, containers.Items[0].ID
}

// awaitContainersEnd waits for the end of the container that an instance has.
func awaitContainersEnd(t *testing.T, instance string) {
	t.Helper()
	c, id := containerOf(t, instance)
	wait := c.ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: "not-running"})
	select {
	case <-wait.Result:
	case err := <-wait.Error:
		t.Fatal(err)
	}
}

func TestTaskEndsWhereNoWorkerComes(t *testing.T) {
	s := succeed(t, docker.Config{Egress: docker.EgressNone, OrphanTimeout: 200 * time.Millisecond}, shell("echo rea''dy; sleep 1000000"))
	s.await(t, "ready")
	s.detach(t)
	awaitContainersEnd(t, s.c.Instance)
	s.reattach(t)
	if _, err := s.sandbox.Wait(t.Context()); fault.Classify(err).Kind != fault.Shutdown {
		t.Errorf("the task ends with %v, want that the host ended it", err)
	}
}

func TestDaemonFailsDuringReattachment(t *testing.T) {
	for _, tt := range []struct {
		title   string
		trouble func(*testing.T)
		lost    bool // the daemon ends the task
	}{
		{"it is frozen for a while", func(t *testing.T) {
			t.Helper()
			if err := daemon.Freeze(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, func() {
				if err := daemon.Thaw(); err != nil {
					t.Error(err)
				}
			})
		}, false},
		{"it is killed, and comes back", func(t *testing.T) {
			t.Helper()
			daemon.Kill()
			launched := make(chan error, 1)
			time.AfterFunc(time.Second, func() { launched <- daemon.Launch() })
			t.Cleanup(func() {
				if err := <-launched; err != nil {
					t.Error(err)
				}
			})
		}, true},
		{"it is stopped, and comes back", func(t *testing.T) {
			t.Helper()
			daemon.Terminate()
			if err := daemon.Launch(); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(tt.title, func(t *testing.T) {
			s := succeed(t, docker.Config{Egress: docker.EgressInternet}, counting())
			s.await(t, "n5\n")
			s.detach(t)
			tt.trouble(t)
			s.reattach(t)
			r, err := s.sandbox.Wait(t.Context())
			if tt.lost {
				if fault.Classify(err).Kind != fault.Shutdown {
					t.Errorf("the task ends with %v, want that the host ended it", err)
				}
				return
			}
			if err != nil || !r.Result().Success || strings.Count(s.logs.Text(s.o.Run), "last\n") != 1 {
				t.Errorf("the task ends with %v:\n%s", err, s.logs.Text(s.o.Run))
			}
			if err == nil {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOrphanKeepsItsNetworkFromOthers(t *testing.T) {
	s := succeed(t, docker.Config{Egress: docker.EgressInternet, Capacity: 2}, shell("echo rea''dy; sleep 1000000"))
	s.await(t, "ready")
	s.detach(t)
	s.open(t)
	mine := shell("ip -4 addr show dev eth0 | grep -o 'inet [0-9.]*'")
	_, log := run(t, s.e, mine)
	first, _, _ := strings.Cut(strings.SplitN(log.String(), "\ninet ", 2)[1], "\n")
	recording, at, err := s.logs.Resume(s.o.Run)
	if err != nil {
		t.Fatal(err)
	}
	s.o.Log = tasklog.New(recording)
	if s.sandbox, err = s.e.Reattach(t.Context(), s.o, at); err != nil {
		t.Fatal(err)
	}
	shell, err := s.sandbox.(engine.Shells).OpenShell(t.Context(), engine.ShellOptions{Command: []string{"sh", "-c", "ip -4 addr show dev eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shell.Close() }()
	var theirs bytes.Buffer
	if _, err := theirs.ReadFrom(shell.Stdout()); err != nil {
		t.Fatal(err)
	}
	if first == "" || strings.Contains(theirs.String(), first+"/") {
		t.Errorf("a task with the address %s is where the orphan is:\n%s", first, theirs.String())
	}
}

func TestNoDirectoryMeansNoOrphans(t *testing.T) {
	c := config(t, daemon, docker.Config{Egress: docker.EgressNone})
	c.Dir = ""
	t.Setenv("TMPDIR", t.TempDir())
	e, shut, err := docker.New(t.Context(), c, newLocalImages, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	log := newRecord()
	r, err := begin(t, e, shell("echo done"), log).Wait(t.Context())
	if err != nil || !r.Result().Success {
		t.Errorf("it ends with %v:\n%s", err, log)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if runs, err := e.Orphans(t.Context()); len(runs) > 0 || err != nil {
		t.Errorf("the orphans are %v, %v", runs, err)
	}
	if err := e.Discard(t.Context(), task.RunID{}); err != nil {
		t.Error(err)
	}
	shut()
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if left := leftovers(t, c.Instance); len(left) > 0 {
		t.Errorf("the engine has left %v", left)
	}
}

// A daemon that goes away may bring back what it has said to be removed.
func TestWhatADaemonBringsBackIsRemoved(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	if r, log := run(t, e, shell("echo done")); !r.Result().Success {
		t.Errorf("result %+v:\n%s", r.Result(), log)
	}
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	labels := map[string]string{"taskcluster-worker.instance": t.Name()}
	back, err := c.NetworkCreate(t.Context(), t.Name(), client.NetworkCreateOptions{Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: dockertest.Image, Cmd: []string{"true"}, Labels: labels},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(back.ID)},
	})
	if err != nil {
		t.Fatal(err)
	}
}
