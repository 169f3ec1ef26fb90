package verdict

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lines returns a log with the lines from first to last, and a line of the
// worker between them.
func lines(first, last int) string {
	var b strings.Builder
	b.WriteString("[taskcluster 2026-01-01T00:00:00.000Z] === Task Starting ===\n")
	for i := first; i <= last; i++ {
		b.WriteString(Line(i) + "\n")
		if i == first {
			b.WriteString("[taskcluster 2026-01-01T00:00:00.000Z] line 7 of the worker\n")
		}
	}
	return b.String()
}

// good returns a task with two runs of which nothing is wrong.
func good() Task {
	at := time.Unix(1e9, 0)
	sums := map[string]string{"public/a": "01"}
	return Task{
		ID: "t", Kind: "k", Want: Expectation{State: "completed", Reason: "completed", Lines: 5, Says: "Starting", Artifacts: sums},
		Runs: []Run{
			{State: "exception", Reason: "worker-shutdown", Started: at, Resolved: at, HasLog: true, Log: lines(0, 2), Begun: 1},
			{State: "completed", Reason: "completed", Started: at, Resolved: at, HasLog: true, Log: lines(0, 4), Artifacts: maps.Clone(sums), Begun: 1, Ended: 1},
		},
	}
}

func TestGoodTasksBreakNoLaw(t *testing.T) {
	for name, change := range map[string]func(*Task){
		"two runs":                               func(*Task) {},
		"one run":                                func(t *Task) { t.Runs = t.Runs[1:] },
		"an earlier run that left no log":        func(t *Task) { t.Runs[0].HasLog, t.Runs[0].Log = false, "" },
		"an earlier run whose claim has expired": func(t *Task) { t.Runs[0].Reason = "claim-expired" },
		"no other witness":                       func(t *Task) { t.Runs[1].Begun, t.Runs[1].Ended = -1, -1 },
		"lines that end as those of a terminal":  func(t *Task) { t.Runs[1].Log = strings.ReplaceAll(t.Runs[1].Log, "\n", "\r\n") },
		"a retry that the task asked for": func(t *Task) {
			t.Want.Retried, t.Runs[0].Reason = []string{"intermittent-task"}, "intermittent-task"
		},
		"a task that is cut off": func(t *Task) {
			t.Want.Cut, t.Runs[1].Log = true, lines(0, 3)
		},
		"a canceled task without a log": func(t *Task) {
			t.Want = Expectation{State: "exception", Reason: "canceled", NoLog: true}
			t.Runs = []Run{{State: "exception", Reason: "canceled"}}
		},
		"lines that did not fit on the disk": func(t *Task) {
			t.Runs[1].Cramped = true
			t.Runs[1].Log = lines(0, 1) + "[taskcluster:error] log truncated: no space left on device, 9 bytes dropped\n" + Line(4) + "\n"
		},
		"output that did not fit on the disk": func(t *Task) {
			t.Runs[1].Cramped = true
			t.Runs[1].Log = lines(0, 1) + "[taskcluster:error] 9 bytes of output are missing here: they could not be stored (no space left on device)\n"
		},
		"output of a container that did not fit on the disk": func(t *Task) {
			t.Runs[1].Cramped = true
			t.Runs[1].Log = lines(3, 4) + "[taskcluster:error] 9 bytes of output are missing: they could not be stored (no space left on device)\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := good()
			change(&task)
			if got := Judge([]Task{task}); len(got) > 0 {
				t.Errorf("it is accused of %v", got)
			}
		})
	}
}

func TestEveryLawCanBeBroken(t *testing.T) {
	last := func(change func(*Run)) func(*Task) {
		return func(t *Task) { change(&t.Runs[1]) }
	}
	for name, tt := range map[string]struct {
		change func(*Task)
		want   string
	}{
		"no run":                  {func(t *Task) { t.Runs = nil }, "t (k): lost: it has no run"},
		"pending":                 {last(func(r *Run) { r.State = "pending" }), "t/1 (k): lost: it is pending"},
		"running":                 {last(func(r *Run) { r.State = "running" }), "t/1 (k): lost: it is running"},
		"failed":                  {last(func(r *Run) { r.State, r.Reason = "failed", "failed" }), "t/1 (k): it is failed (failed), want completed (completed)"},
		"internal error":          {last(func(r *Run) { r.State, r.Reason = "exception", "internal-error" }), "it is exception (internal-error)"},
		"retries are used up":     {func(t *Task) { t.Runs = t.Runs[:1] }, "t/0 (k): it is exception (worker-shutdown)"},
		"completed twice":         {func(t *Task) { t.Runs[0] = t.Runs[1] }, "t/0 (k): it is completed (completed), and there is another run"},
		"retried without reason":  {func(t *Task) { t.Runs[0].Reason = "intermittent-task" }, "t/0 (k): it is exception (intermittent-task), and there is another run"},
		"executed twice":          {last(func(r *Run) { r.Begun = 2 }), "t/1 (k): doubled: its commands began 2 times"},
		"ended twice":             {last(func(r *Run) { r.Ended = 2 }), "doubled: its commands began 1 times and ended 2 times"},
		"not executed":            {last(func(r *Run) { r.Ended = 0 }), "t/1 (k): it is completed, and its commands have not come to their end"},
		"earlier run was doubled": {func(t *Task) { t.Runs[0].Begun = 2 }, "t/0 (k): doubled"},
		"no log":                  {last(func(r *Run) { r.HasLog, r.Log = false, "" }), "t/1 (k): there is no log"},
		"a log without its end":   {last(func(r *Run) { r.Log = lines(0, 3) }), "t/1 (k): its log has 4 lines, want 5"},
		"a log with more":         {last(func(r *Run) { r.Log = lines(0, 5) }), "t/1 (k): its log has 6 lines, want 5"},
		"a log without its head":  {last(func(r *Run) { r.Log = lines(1, 4) }), "t/1 (k): its log has line 1 after line -1"},
		"a gap":                   {last(func(r *Run) { r.Log = lines(0, 1) + Line(3) + "\n" + Line(4) + "\n" }), "t/1 (k): its log has line 3 after line 1"},
		"a line twice":            {last(func(r *Run) { r.Log = lines(0, 2) + Line(2) + "\n" + Line(3) + "\n" }), "t/1 (k): its log has line 2 after line 2"},
		"out of order":            {last(func(r *Run) { r.Log = lines(0, 1) + Line(3) + "\n" + Line(2) + "\n" }), "t/1 (k): its log has line 3 after line 1"},
		"an earlier log":          {func(t *Task) { t.Runs[0].Log = lines(1, 2) }, "t/0 (k): its log has line 1 after line -1"},
		"a gap that is not named": {last(func(r *Run) { r.Cramped, r.Log = true, lines(0, 1)+Line(4)+"\n" }), "t/1 (k): its log has line 4 after line 1"},
		"a named gap for nothing": {last(func(r *Run) { r.Log = lines(0, 3) + "[taskcluster:error] log truncated: x\n" }), "want 5"},
		"a line twice on a full disk": {
			last(func(r *Run) {
				r.Cramped, r.Log = true, lines(0, 1)+Line(1)+"\n[taskcluster:error] log truncated: x\n"
			}), "t/1 (k): its log has line 1 after line 1",
		},
		"two heads":             {last(func(r *Run) { r.Log = strings.Repeat("=== Task Starting ===\n", 2) + lines(0, 4) }), "t/1 (k): doubled: its log begins 3 times"},
		"what is not said":      {func(t *Task) { t.Want.Says = "max run time" }, `t/1 (k): its log lacks "max run time"`},
		"an artifact less":      {last(func(r *Run) { r.Artifacts = nil }), "t/1 (k): artifact public/a is missing"},
		"an artifact more":      {last(func(r *Run) { r.Artifacts["public/b"] = "02" }), "t/1 (k): nobody has asked for artifact public/b"},
		"an artifact is broken": {last(func(r *Run) { r.Artifacts["public/a"] = "02" }), "t/1 (k): artifact public/a has other content"},
		"an exception without a log": {func(t *Task) {
			t.Want = Expectation{State: "exception", Reason: "malformed-payload"}
			t.Runs = []Run{{State: "exception", Reason: "malformed-payload"}}
		}, "t/0 (k): there is no log"},
	} {
		t.Run(name, func(t *testing.T) {
			task := good()
			tt.change(&task)
			problems := Judge([]Task{good(), task})
			var all []string
			for _, p := range problems {
				all = append(all, p.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), tt.want) {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	got := Numbers("line 0 of the task\nline 1 of the task\r\nx line 2 of the task\nline 3 of the tasks\n+ echo line 4 of the task\nline 5 of the task")
	if diff := cmp.Diff([]int{0, 1, 5}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
