package lifecycle_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	by    = lifecycle.Worker{Group: "group", ID: "worker"}
)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

// running returns a task whose first run is claimed for 20 minutes.
func running(t *testing.T, retries int) lifecycle.Status {
	t.Helper()
	s, ok := lifecycle.New(retries).Schedule(at(0))
	if !ok {
		t.Fatal("cannot schedule a new task")
	}
	s, ok = s.Claim(0, by, at(20), at(1))
	if !ok {
		t.Fatal("cannot claim a pending run")
	}
	return s
}

func TestLifeOfATask(t *testing.T) {
	s := running(t, 1)
	s, ok := s.Except(0, "worker-shutdown", at(2))
	if !ok {
		t.Fatal("cannot resolve a running run")
	}
	s, ok = s.Claim(1, by, at(23), at(3))
	if !ok {
		t.Fatal("cannot claim the retry")
	}
	s, ok = s.Reclaim(1, at(30))
	if !ok {
		t.Fatal("cannot reclaim")
	}
	got, ok := s.Complete(1, at(4))
	if !ok {
		t.Fatal("cannot complete")
	}
	want := lifecycle.Status{RetriesLeft: 0, Runs: []lifecycle.Run{
		{
			State: lifecycle.Exception, ReasonCreated: "scheduled", ReasonResolved: "worker-shutdown",
			WorkerGroup: "group", WorkerID: "worker", TakenUntil: at(20), Scheduled: at(0), Started: at(1), Resolved: at(2),
		},
		{
			State: lifecycle.Completed, ReasonCreated: "retry", ReasonResolved: "completed",
			WorkerGroup: "group", WorkerID: "worker", TakenUntil: at(30), Scheduled: at(2), Started: at(3), Resolved: at(4),
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestRetries(t *testing.T) {
	for reason, created := range map[string]string{
		"worker-shutdown": "retry", "intermittent-task": "task-retry",
		"malformed-payload": "", "internal-error": "", "resource-unavailable": "",
	} {
		t.Run(reason, func(t *testing.T) {
			s, ok := running(t, 1).Except(0, reason, at(2))
			if !ok {
				t.Fatal("not resolved")
			}
			if created == "" {
				if len(s.Runs) != 1 || s.RetriesLeft != 1 {
					t.Errorf("retried: %+v", s)
				}
				return
			}
			if len(s.Runs) != 2 || s.RetriesLeft != 0 || s.Runs[1].ReasonCreated != created {
				t.Errorf("not retried as %s: %+v", created, s)
			}
			s, _ = s.Claim(1, by, at(20), at(3))
			if s, _ = s.Except(1, reason, at(4)); s.State() != lifecycle.Exception {
				t.Errorf("retried more often than allowed: %+v", s)
			}
		})
	}
}

func TestExpire(t *testing.T) {
	s := running(t, 1)
	if _, ok := s.Expire(0, at(20), at(19)); ok {
		t.Error("a claim expired before its end")
	}
	longer, _ := s.Reclaim(0, at(40))
	if _, ok := longer.Expire(0, at(20), at(21)); ok {
		t.Error("a claim that was prolonged expired")
	}
	s, ok := s.Expire(0, at(20), at(20))
	if !ok || s.Runs[0].ReasonResolved != "claim-expired" || s.State() != lifecycle.Pending || s.RetriesLeft != 0 {
		t.Errorf("expired to %+v, %v", s, ok)
	}
}

func TestReclaimNeverShortensAClaim(t *testing.T) {
	s, ok := running(t, 0).Reclaim(0, at(10))
	if !ok || !s.Runs[0].TakenUntil.Equal(at(20)) {
		t.Errorf("reclaimed until %v, %v", s.Runs[0].TakenUntil, ok)
	}
}

func TestCancel(t *testing.T) {
	s, ok := lifecycle.New(5).Cancel(lifecycle.Canceled, at(1))
	if !ok || s.State() != lifecycle.Exception || s.Runs[0].ReasonCreated != "exception" {
		t.Errorf("cancelling an unscheduled task gives %+v, %v", s, ok)
	}
	if _, ok := s.Cancel(lifecycle.DeadlineExceeded, at(2)); ok {
		t.Error("a resolved task was cancelled")
	}
	s, ok = running(t, 5).Cancel(lifecycle.DeadlineExceeded, at(3))
	if !ok || len(s.Runs) != 1 || s.Runs[0].ReasonResolved != "deadline-exceeded" {
		t.Errorf("cancelling a running task gives %+v, %v", s, ok)
	}
	if _, ok := s.Complete(0, at(4)); ok {
		t.Error("a cancelled run was completed")
	}
}

func TestAgain(t *testing.T) {
	s := running(t, 5)
	if _, ok := s.Again(5, at(2)); ok {
		t.Error("a running task was rerun")
	}
	s, _ = s.Fail(0, at(2))
	for len(s.Runs) < lifecycle.MaxRuns {
		var ok bool
		if s, ok = s.Again(5, at(3)); !ok {
			t.Fatalf("no rerun after %d runs", len(s.Runs))
		}
		if left := lifecycle.MaxRuns - len(s.Runs); s.RetriesLeft > left || s.RetriesLeft > 5 {
			t.Fatalf("%d retries left after %d runs", s.RetriesLeft, len(s.Runs))
		}
		s, _ = s.Cancel(lifecycle.Canceled, at(4))
	}
	if _, ok := s.Again(5, at(5)); ok {
		t.Errorf("more than %d runs", lifecycle.MaxRuns)
	}
}

// FuzzStatus applies random verbs and checks what must hold of any task.
func FuzzStatus(f *testing.F) {
	f.Add([]byte{0, 1, 3})
	f.Add([]byte{0, 1, 5, 1, 6, 1, 8, 9, 1, 2, 7})
	f.Fuzz(func(t *testing.T, verbs []byte) {
		s := lifecycle.New(3)
		for i, v := range verbs {
			before, now := s, at(i)
			run := s.Last() - int(v>>6&1)
			var changed bool
			switch v & 15 {
			case 0:
				s, changed = s.Schedule(now)
			case 1:
				s, changed = s.Claim(run, by, now.Add(20*time.Minute), now)
			case 2:
				s, changed = s.Reclaim(run, now.Add(20*time.Minute))
			case 3:
				s, changed = s.Complete(run, now)
			case 4:
				s, changed = s.Fail(run, now)
			case 5:
				s, changed = s.Except(run, "worker-shutdown", now)
			case 6:
				s, changed = s.Except(run, "intermittent-task", now)
			case 7:
				s, changed = s.Except(run, "internal-error", now)
			case 8:
				s, changed = s.Cancel(lifecycle.Canceled, now)
			case 9:
				s, changed = s.Again(3, now)
			case 10:
				if run >= 0 {
					s, changed = s.Expire(run, s.Runs[run].TakenUntil, now)
				}
			}
			if !changed {
				if diff := cmp.Diff(before, s); diff != "" {
					t.Fatalf("verb %d changed a status that it refused:\n%s", v&15, diff)
				}
				continue
			}
			check(t, before, s)
		}
	})
}

func check(t *testing.T, before, after lifecycle.Status) {
	t.Helper()
	if after.RetriesLeft < 0 || len(after.Runs) > lifecycle.MaxRuns || len(after.Runs) < len(before.Runs) {
		t.Fatalf("%d retries left, %d runs after %d", after.RetriesLeft, len(after.Runs), len(before.Runs))
	}
	for i, r := range after.Runs {
		if i < after.Last() && !r.State.Resolved() {
			t.Fatalf("run %d of %d is %s", i, len(after.Runs), r.State)
		}
		if r.State.Resolved() != (r.ReasonResolved != "") || r.State.Resolved() != !r.Resolved.IsZero() {
			t.Fatalf("run %d is %s with reason %q, resolved %v", i, r.State, r.ReasonResolved, r.Resolved)
		}
		if i < len(before.Runs) && before.Runs[i].State.Resolved() {
			if diff := cmp.Diff(before.Runs[i], r); diff != "" {
				t.Fatalf("a resolved run changed:\n%s", diff)
			}
		}
	}
}
