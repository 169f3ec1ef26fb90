package native

import (
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// stopping is an interruption that stops a task.
func stopping() engine.Interruption {
	return engine.Interruption{Cause: "test", Deadline: time.Now().Add(time.Minute), Stop: true}
}

func TestOnlyTheCommandIsToldToStop(t *testing.T) {
	const script = `trap 'touch told' TERM
sh -c 'trap "echo child was to''ld" TERM; until [ -e told ]; do sleep 0.02; done; sleep 0.1' &
echo re''ady
wait; wait
echo the e''nd`
	log := &safeBuffer{}
	s := start(t, open(t, Config{}), log, []string{"sh", "-c", script})
	log.await(t, "ready\n")
	if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
		t.Error(err)
	}
	r := wait(t, s).Result()
	if text := log.String(); !r.Success || strings.Contains(text, "child was told") || !strings.Contains(text, "the end\n") {
		t.Errorf("the result is %+v, and the log:\n%s", r, text)
	}
}

// A task that was told to stop and is killed then has had its time.
func TestKillAfterAnInterruptionLeavesNoMoreTime(t *testing.T) {
	log := &safeBuffer{}
	s := start(t, open(t, Config{Grace: time.Hour}), log, []string{"sh", "-c", "trap 'echo deaf' TERM; echo re''ady; while :; do sleep 0.02; done"})
	log.await(t, "ready\n")
	if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
		t.Error(err)
	}
	log.await(t, "deaf\n")
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if r := wait(t, s).Result(); !r.Killed || r.Signal != "killed" {
		t.Errorf("the result is %+v", r)
	}
}

// Directories are used again.
func TestNextTaskIsNotToldWhatTheLastWas(t *testing.T) {
	e := open(t, Config{Warm: 1})
	for range 3 {
		log := &safeBuffer{}
		s := start(t, e, log, []string{"sh", "-c", heed})
		log.await(t, "heeding")
		if err := s.(engine.Interrupter).Interrupt(t.Context(), stopping()); err != nil {
			t.Error(err)
		}
		if err := wait(t, s).Close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(log.String(), "heeding again") {
			t.Errorf("the interruption file was there before the interruption:\n%s", log)
		}
	}
}

func TestInterruptionFileIsTheWorkers(t *testing.T) {
	const script = `d=$(dirname "$TASKCLUSTER_INTERRUPTION_FILE")
if touch "$d/x" || touch "$TASKCLUSTER_INTERRUPTION_FILE" || mv "$d" "$d.old"; then echo forg''ed; fi`
	log := &safeBuffer{}
	wait(t, start(t, open(t, Config{}), log, []string{"sh", "-c", script}))
	if strings.Contains(log.String(), "forged") {
		t.Errorf("the task has forged an interruption:\n%s", log)
	}
}
