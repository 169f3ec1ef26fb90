package worker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

func TestPlan(t *testing.T) {
	now := time.Now()
	const s = time.Second
	for _, tt := range []struct {
		name                  string
		left                  time.Duration // until the deadline
		stop, kill, logs, end time.Duration // from now
	}{
		{"a week", 7 * 24 * time.Hour, 7*24*time.Hour - 300*s, 7*24*time.Hour - 270*s, 7*24*time.Hour - 10*s, 7 * 24 * time.Hour},
		{"the lead", 300 * s, 0, 30 * s, 290 * s, 300 * s},
		{"a spot instance's", 120 * s, 0, 30 * s, 110 * s, 120 * s},
		{"half a minute", 30 * s, 0, 15 * s, 22500 * time.Millisecond, 30 * s},
		{"hardly any", 2 * s, 0, 1 * s, 3750 * time.Millisecond, 5 * s},
		{"none", 0, 0, 0, 3750 * time.Millisecond, 5 * s},
		{"less than none", -time.Hour, 0, 0, 3750 * time.Millisecond, 5 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := planFor(now, now.Add(tt.left), 300*s, 30*s)
			want := plan{now.Add(tt.stop), now.Add(tt.kill), now.Add(tt.logs), now.Add(tt.end)}
			if got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestOnlyANoticeWithADeadlineTellsOne(t *testing.T) {
	deadline := time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		deadline time.Time
		want     bool
	}{"a drain": {}, "a termination": {deadline, true}} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			d := newDrain(time.Minute, time.Second, slog.New(slog.NewTextHandler(&said, nil)))
			d.notice(interrupt.Notice{Cause: "test", Deadline: tt.deadline})
			d.close()
			line, _, _ := strings.Cut(said.String(), "\n")
			if got := strings.Contains(line, " deadline="); got != tt.want || !strings.Contains(line, "cause=test") {
				t.Errorf("it said %q; whether that has a deadline: got %v, want %v", line, got, tt.want)
			}
		})
	}
}

// TestStepsComeInOrder sends random notices: whatever comes, no step ends before
// the one ahead of it, each ends in time, and runs are told why they end.
func TestStepsComeInOrder(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			some := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
			grace := some(time.Minute) - time.Second
			d := newDrain(some(10*time.Minute), grace, slog.New(slog.DiscardHandler))
			defer d.close()
			steps := []context.Context{d.claiming, d.working, d.yielding, d.salvaging, d.saving}
			ends := make([]time.Time, len(steps))
			for i, step := range steps {
				defer context.AfterFunc(step, func() {
					ends[i] = time.Now()
					for _, before := range steps[:i] {
						if before.Err() == nil {
							t.Errorf("seed %d: step %d ended before an earlier one", seed, i)
						}
					}
				})() // before the drain is closed
			}
			var last, deadline time.Time
			for range 1 + random.IntN(5) {
				time.Sleep(some(2 * time.Minute)) //nolint:forbidigo // the time of a bubble
				if d.saving.Err() != nil {
					break
				}
				n := interrupt.Notice{Cause: "test"}
				if last = time.Now(); random.IntN(4) > 0 {
					n.Deadline = last.Add(some(20*time.Minute) - time.Minute)
				}
				d.notice(n)
				if deadline.IsZero() || !n.Deadline.IsZero() && n.Deadline.Before(deadline) {
					deadline = n.Deadline
				}
			}
			if deadline.IsZero() {
				if synctest.Wait(); d.claiming.Err() == nil || d.working.Err() != nil {
					t.Errorf("seed %d: without a deadline, claiming ended with %v, and working with %v", seed, d.claiming.Err(), d.working.Err())
				}
				return
			}
			<-d.saving.Done()
			synctest.Wait()
			f, ok := errors.AsType[*fault.Error](context.Cause(d.working))
			if !ok || f.Kind != fault.Shutdown {
				t.Errorf("seed %d: runs were stopped for %v", seed, context.Cause(d.working))
			}
			if asked := ends[2].Sub(ends[1]); asked > max(0, grace) {
				t.Errorf("seed %d: tasks had %v to end, more than %v", seed, asked, grace)
			}
			if late := ends[4].Sub(deadline); late > reportTime && ends[4].Sub(last) > reportTime {
				t.Errorf("seed %d: the end was %v late", seed, late)
			}
		})
	}
}
