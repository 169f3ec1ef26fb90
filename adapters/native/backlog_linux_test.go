package native

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// leastBacklog is the smallest that there can be.
const leastBacklog = 2 * forgetPiece

// flood prints without end, with a mark among its arguments.
func flood(mark string) []string {
	return []string{"sh", "-c", "echo ready; while [ ! -e more ]; do sleep 0.01; done; exec yes " + mark}
}

// backlogFull reports whether a task that prints without end has filled the
// least backlog.
func backlogFull(size, _ int64) bool { return size >= leastBacklog }

func TestBacklogIsLoggedByTheNextWorker(t *testing.T) {
	const size = 2 * leastBacklog
	e := open(t, Config{Backlog: 1})
	var logs tasklogtest.Memory
	var id task.RunID
	recording, err := logs.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.NewBuilder(t.Context(), engine.Options{
		Payload: payloadOf(t, []string{
			"sh", "-c",
			fmt.Sprintf("while [ ! -e more ]; do sleep 0.01; done; head -c %d /dev/zero | tr '\\0' x; echo; echo last", size),
		}),
		Log: tasklog.New(recording),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := s.(*sandbox).berth.dir
	e = detach(t, e)
	goOn(t, dir)
	awaitOutput(t, dir, "the task prints", backlogFull)
	resumed, at, err := logs.Resume(id)
	if err != nil {
		t.Fatal(err)
	}
	if r := wait(t, reattach(t, e, tasklog.New(resumed), at)); !r.Result().Success {
		t.Errorf("the result is %+v", r.Result())
	}
	if log := logs.Text(id); !strings.Contains(log, "\n"+strings.Repeat("x", size)+"\nlast\n") {
		t.Errorf("the log of %d bytes lacks some of %d", len(log), size)
	}
}

// A task that no worker comes for waits with what it prints, and ends in time.
func TestTaskThatWaitsForAWorkerEnds(t *testing.T) {
	const mark = "native-waits-for-a-worker"
	e := open(t, Config{Backlog: 1, OrphanTimeout: time.Second})
	log := &safeBuffer{}
	s := start(t, e, log, flood(mark))
	dir := s.(*sandbox).berth.dir
	log.await(t, "ready\n")
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	goOn(t, dir)
	awaitOutput(t, dir, "the task ends", func(int64, int64) bool { return len(processes(t, mark)) == 0 })
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, outputName), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size > leastBacklog+1<<20 {
		t.Errorf("without a worker, %d bytes of output were stored", st.Size)
	}
	open(t, e.config) // which removes what is left
}

// A worker that does not get on with the log can end the task nevertheless.
func TestTaskThatWaitsCanBeKilled(t *testing.T) {
	e := open(t, Config{Backlog: 1})
	release := make(chan struct{})
	b, err := e.NewBuilder(t.Context(), optionsWith(t, stalled{release}, []string{"yes"}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, s.(*sandbox).berth.dir, "the task prints", backlogFull)
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(release)
	if r := wait(t, s); !r.Result().Killed {
		t.Errorf("the result is %+v", r.Result())
	}
}

// A worker of the version before does not tell what it has logged. Tasks do not
// wait for that, nor does the next worker need anything to be left to log.
func TestBacklogOfAnEarlierVersion(t *testing.T) {
	e := open(t, Config{Backlog: 1})
	log := &safeBuffer{}
	s := start(t, e, log, flood("native-earlier-version"))
	dir := s.(*sandbox).berth.dir
	log.await(t, "ready\n")
	e = detach(t, e)
	earlier := &berth{}
	if _, err := earlier.greet(dir); err != nil {
		t.Fatal(err)
	}
	goOn(t, dir)
	var logged int64
	awaitOutput(t, dir, "the task does not wait", func(size, _ int64) bool {
		logged = size
		return size >= 2*leastBacklog
	})
	if err := earlier.closeFiles(); err != nil {
		t.Error(err)
	}
	const lines = 1 // of events
	next := reattach(t, e, tasklog.New(io.Discard), tasklog.Position(logged+lines))
	awaitOutput(t, dir, "the task goes on", func(size, _ int64) bool { return size >= logged+2*leastBacklog })
	if err := next.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}
