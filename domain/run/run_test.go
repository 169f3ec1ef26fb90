package run_test

import (
	"errors"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/run"
)

var (
	ok    = run.Exited{Success: true}
	bad   = run.Exited{Success: false}
	fault = run.Faulted{Reason: run.WorkerShutdown}
)

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"salvaging":                   run.Salvaging.String(),
		"State(99)":                   run.State(99).String(),
		"Outcome(99)":                 run.Outcome(99).String(),
		"failed":                      run.Resolution{Outcome: run.Failed}.String(),
		"exception (worker-shutdown)": run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRun(t *testing.T) {
	toRunning := []run.Event{run.Begun{}, run.Prepared{}, run.Started{}}
	toReport := []run.Event{run.Collected{Success: true}, run.Finished{}}
	for _, tt := range []struct {
		name   string
		events [][]run.Event
		state  run.State
		want   run.Resolution
	}{
		{"success", [][]run.Event{toRunning, {ok}, toReport}, run.Reporting, run.Resolution{Outcome: run.Completed}},
		{"non-zero exit", [][]run.Event{toRunning, {bad}, toReport}, run.Reporting, run.Resolution{Outcome: run.Failed}},
		{"artifact missing", [][]run.Event{toRunning, {ok, run.Collected{}, run.Finished{}}}, run.Reporting, run.Resolution{Outcome: run.Failed}},
		{"spot termination", [][]run.Event{toRunning, {fault}}, run.Reporting, run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}},
		{"bad payload", [][]run.Event{{run.Begun{}, run.Faulted{Reason: run.MalformedPayload}}}, run.Reporting, run.Resolution{Outcome: run.Exception, Reason: run.MalformedPayload}},
		{"salvage after exception", [][]run.Event{{fault, run.Reported{}}}, run.Salvaging, run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}},
		{"no salvage after failure", [][]run.Event{toRunning, {bad}, toReport, {run.Reported{}}}, run.Disposing, run.Resolution{Outcome: run.Failed}},
		{"canceled while running", [][]run.Event{toRunning, {run.ClaimLost{}}}, run.Disposing, run.Resolution{Outcome: run.Abandoned}},
		{"mount missing", [][]run.Event{{run.Begun{}, run.NotStarted{}, run.Finished{}}}, run.Reporting, run.Resolution{Outcome: run.Failed}},
		{"fault while collecting a failed run", [][]run.Event{toRunning, {bad, fault}}, run.Reporting, run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}},
		{"report refused", [][]run.Event{toRunning, {ok}, toReport, {run.ClaimLost{}}}, run.Disposing, run.Resolution{Outcome: run.Abandoned}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r run.Run
			for _, es := range tt.events {
				for _, e := range es {
					var err error
					if r, err = r.After(e); err != nil {
						t.Fatal(err)
					}
				}
			}
			if r.State() != tt.state || r.Resolution() != tt.want {
				t.Errorf("got %v, %v; want %v, %v", r.State(), r.Resolution(), tt.state, tt.want)
			}
		})
	}
}

// FuzzRun checks what holds for every sequence of events: the state never goes
// back, an illegal event changes nothing, an exception has a reason, and a
// decided outcome is only ever replaced by a graver one.
func FuzzRun(f *testing.F) {
	events := []run.Event{
		run.Begun{},
		run.Prepared{},
		run.Started{},
		ok, bad,
		run.Collected{Success: true},
		run.Collected{},
		run.Finished{},
		fault,
		run.ClaimLost{},
		run.Reported{},
		run.Salvaged{},
		run.Disposed{},
		run.NotStarted{},
		run.Faulted{},
	}
	f.Add([]byte{0, 1, 2, 3, 5, 7, 10, 12})
	f.Add([]byte{0, 8, 10, 11, 12})
	f.Fuzz(func(t *testing.T, script []byte) {
		var r run.Run
		for _, b := range script {
			e := events[int(b)%len(events)]
			next, err := r.After(e)
			if err != nil {
				if _, ok := errors.AsType[*run.TransitionError](err); !ok {
					t.Fatalf("After(%T) = %v, want a TransitionError", e, err)
				}
				if next != r {
					t.Fatalf("illegal %T changed %v to %v", e, r, next)
				}
				continue
			}
			if next.State() <= r.State() {
				t.Fatalf("%T: %v → %v", e, r.State(), next.State())
			}
			if next.Resolution().Outcome < r.Resolution().Outcome {
				t.Fatalf("%T: outcome %v → %v", e, r.Resolution(), next.Resolution())
			}
			if (next.Resolution().Outcome == run.Exception) != (next.Resolution().Reason != "") {
				t.Fatalf("%T: %v", e, next.Resolution())
			}
			r = next
		}
	})
}
