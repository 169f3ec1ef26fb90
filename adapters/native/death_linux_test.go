package native

import (
	"context"
	"io/fs"
	"os/exec"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestKillLeavesTimeToEnd(t *testing.T) {
	e := open(t, Config{Grace: time.Hour})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000000 & wait"}, []string{"echo", "later"})
	log.await(t, "ready\n")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := wait(t, s).Result()
	if r.Success || !r.Killed || r.ExitCode != 0 {
		t.Errorf("the result is %+v", r)
	}
	if !strings.Contains(log.String(), "bye\n") || strings.Contains(log.String(), "later\n") {
		t.Errorf("the log is:\n%s", log)
	}
}

// TestKillDoesWithoutTheSupervisor has one that does not answer: a task can keep
// it from that for as long as the file system of its program, which may be the
// task's own, does not let the program begin.
func TestKillDoesWithoutTheSupervisor(t *testing.T) {
	e := open(t, Config{})
	e.killPatience = time.Millisecond
	log := &safeBuffer{}
	const mark = "native-kill-without-supervisor"
	s := start(t, e, log, []string{"sh", "-c", "echo kept > file; echo ready; exec sh -c 'sleep 1000000; :' " + mark}).(*sandbox)
	log.await(t, "ready\n")
	if err := s.berth.process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Result(); got.Success || !got.Killed || got.ExitCode != -1 {
		t.Errorf("the result is %+v", got)
	}
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if b, err := fs.ReadFile(r.FS(), path.Join(r.Dir(), "file")); string(b) != "kept\n" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "supervisor does not answer") {
		t.Errorf("the log is:\n%s", log)
	}
}

func TestSlowLogIsNoFaultOfTheSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sandbox{e: &Engine{ctx: t.Context()}, ended: make(chan struct{})}
		silent := make(chan bool, 1)
		go func() { silent <- s.awaitSilence(time.Minute) }()
		<-time.After(time.Hour)
		if len(silent) > 0 {
			t.Error("a supervisor seems silent that nobody listens to")
		}
		s.listening.Store(true)
		for range 3 {
			s.heard.Add(1)
			<-time.After(59 * time.Second)
		}
		if len(silent) > 0 {
			t.Error("a supervisor seems silent that is heard of")
		}
		if !<-silent {
			t.Error("a supervisor that is silent does not seem so")
		}
		go func() { silent <- s.awaitSilence(time.Minute) }()
		synctest.Wait()
		close(s.ended)
		if <-silent {
			t.Error("a sandbox that has ended seems silent")
		}
	})
}

// TestProcessThatDoesNotEndIsGivenUp has a supervisor that the kernel does not let
// go of.
func TestProcessThatDoesNotEndIsGivenUp(t *testing.T) {
	ended := exec.CommandContext(t.Context(), "true") // which no signal reaches
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{users: &users{}}
		b := &berth{isolated: true, process: ended.Process, exited: make(chan struct{}), account: &account{name: "task"}}
		if err := e.vacate(t.Context(), b); err == nil || !strings.Contains(err.Error(), "does not end") {
			t.Errorf("vacate returned %v", err)
		}
		if len(e.users.free) > 0 {
			t.Error("the user of a process that goes on is given to the next task")
		}
	})
}
