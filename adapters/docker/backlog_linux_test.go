package docker_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// leastBacklog is the smallest that there can be.
const leastBacklog = 32 << 20

// awaitBacklog waits until the transcripts in a directory take as much of the disk
// as the least backlog does.
func awaitBacklog(tb testing.TB, dir string) {
	tb.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for blocks(tb, filepath.Join(dir, "transcripts")) < leastBacklog {
		select {
		case <-poll.C:
		case <-tb.Context().Done():
			tb.Fatal("the backlog is never full")
		}
	}
}

func TestBacklogIsLoggedByTheNextWorker(t *testing.T) {
	const size = 100 << 20
	s := succeed(t, docker.Config{Egress: docker.EgressNone, Backlog: 1},
		shell("echo rea''dy; while [ ! -e /more ]; do sleep 0.01; done; head -c 104857600 /dev/zero | tr '\\0' x; echo; echo la''st"))
	s.await(t, "ready")
	s.detach(t)
	c, id := containerOf(t, s.c.Instance)
	exec, err := c.ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"touch", "/more"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecStart(t.Context(), exec.ID, client.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	awaitBacklog(t, s.c.Dir)
	s.reattach(t)
	if got := finish(t, s.sandbox).Result(); !got.Success {
		t.Errorf("result %+v", got)
	}
	if log := s.logs.Text(s.o.Run); !strings.Contains(log, "ready\n"+strings.Repeat("x", size)+"\nlast\n") {
		t.Errorf("the log of %d bytes lacks some of %d", len(log), size)
	}
}

// A task that no worker comes for waits with what it prints, and ends in time.
func TestTaskThatWaitsForAWorkerEnds(t *testing.T) {
	s := succeed(t, docker.Config{Egress: docker.EgressNone, OrphanTimeout: time.Second, Backlog: 1}, shell("exec yes"))
	s.await(t, "y\n")
	s.detach(t)
	awaitContainersEnd(t, s.c.Instance)
	if used := blocks(t, filepath.Join(s.c.Dir, "transcripts")); used > leastBacklog+1<<20 {
		t.Errorf("without a worker, output takes %d bytes of the disk", used)
	}
	s.reattach(t)
	if _, err := s.sandbox.Wait(t.Context()); fault.Classify(err).Kind != fault.Shutdown {
		t.Errorf("the task ends with %v, want that the host ended it", err)
	}
}

// A worker that does not get on with the log can end the task nevertheless.
func TestTaskThatWaitsCanBeKilled(t *testing.T) {
	for title, tty := range map[string]bool{"with a pipe": false, "with a terminal": true} {
		t.Run(title, func(t *testing.T) {
			c := docker.Config{Egress: docker.EgressNone, Dir: t.TempDir(), Backlog: 1}
			e := open(t, c)
			payload := shell("exec cat /dev/zero") // in pieces that are not as small as lines
			payload["tty"] = tty
			release := make(chan struct{})
			o := options(t, payload, newRecord())
			o.Log = tasklog.New(stalled{release})
			b, err := e.NewBuilder(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			s, err := b.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			awaitBacklog(t, c.Dir)
			if err := s.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			awaitContainersEnd(t, config(t, daemon, c).Instance)
			close(release)
			if got := finish(t, s).Result(); !got.Killed {
				t.Errorf("result %+v", got)
			}
		})
	}
}

// stalled is a log that takes nothing for a while.
type stalled struct{ until <-chan struct{} }

// Write implements io.Writer.
func (s stalled) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}
