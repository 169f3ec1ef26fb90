package docker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// stopping is an interruption that stops a task.
func stopping() engine.Interruption {
	return engine.Interruption{Cause: "test", Deadline: time.Now().Add(time.Minute), Stop: true}
}

func TestTasksOfAnyUserAreToldOfInterruptions(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	for title, before := range map[string][][]string{"one command": nil, "several commands": {{"true"}}} {
		t.Run(title, func(t *testing.T) {
			payload := map[string]any{
				"user":    "65534:65534",
				"command": append(before, []string{"sh", "-c", heed}),
			}
			log := newRecord()
			s := begin(t, e, payload, log)
			log.has(t.Context(), t, "heeding\n")
			if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
				t.Error(err)
			}
			if r := finish(t, s).Result(); !r.Success || !strings.Contains(log.String(), `{"cause":"test"`) {
				t.Errorf("the result is %+v, and the log:\n%s", r, log)
			}
		})
	}
}

// What is executed beside the task's command is told as well, but not what that
// has started.
func TestOnlyTheCommandIsToldToStop(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	for title, before := range map[string][][]string{"one command": nil, "several commands": {{"true"}}} {
		t.Run(title, func(t *testing.T) {
			const script = `trap 'touch /told' TERM
sh -c 'trap "echo child was to''ld" TERM; until [ -e /told ]; do sleep 0.02; done; sleep 0.1' &
echo re''ady
wait; wait
echo the e''nd`
			log := newRecord()
			s := begin(t, e, map[string]any{"command": append(before, []string{"sh", "-c", script})}, log)
			log.has(t.Context(), t, "ready\n")
			if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
				t.Error(err)
			}
			r := finish(t, s).Result()
			if text := log.String(); !r.Success || strings.Contains(text, "child was told") || !strings.Contains(text, "the end\n") {
				t.Errorf("the result is %+v, and the log:\n%s", r, text)
			}
		})
	}
}

// A task that was told to stop and is killed then has had its time.
func TestKillAfterAnInterruptionLeavesNoMoreTime(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Grace: time.Hour})
	log := newRecord()
	s := begin(t, e, shell("trap 'echo de''af' TERM; echo re''ady; while :; do sleep 0.02; done"), log)
	log.has(t.Context(), t, "ready\n")
	if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
		t.Error(err)
	}
	log.has(t.Context(), t, "deaf\n")
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if r := finish(t, s).Result(); !r.Killed || !r.Interrupted || r.Signal != "killed" {
		t.Errorf("the result is %+v", r)
	}
}

func TestTellingATaskIsGivenUpWhereTheDaemonIsFrozen(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	log := newRecord()
	s := begin(t, e, shell("echo re''ady; exec sleep 1000000"), log)
	log.has(t.Context(), t, "ready\n")
	if err := daemon.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.(engine.Interrupter).Interrupt(ctx, stopping())
	if err == nil {
		t.Error("a daemon that is frozen has told the task")
	}
	if err := daemon.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if r := finish(t, s).Result(); !r.Killed {
		t.Errorf("the result is %+v", r)
	}
}
