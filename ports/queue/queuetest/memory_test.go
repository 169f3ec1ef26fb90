package queuetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	queuetest.Test(t, func(testing.TB) queuetest.Harness {
		return queuetest.NewHarness(&queuetest.Memory{Poll: 50 * time.Millisecond})
	})
}

// one claims one run of a new task.
func one(t *testing.T, m *queuetest.Memory) queue.Claim {
	t.Helper()
	m.AddTask(task.Definition{})
	claims, err := m.Claim(t.Context(), 1)
	if err != nil || len(claims) != 1 {
		t.Fatalf("claimed %d, %v", len(claims), err)
	}
	return claims[0]
}

func TestMemoryKeepsTime(t *testing.T) {
	t.Run("a poll ends by itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := new(queuetest.Memory)
			start := time.Now()
			claims, err := m.Claim(t.Context(), 1)
			if got := time.Since(start); got != 20*time.Second || len(claims) != 0 || err != nil {
				t.Errorf("claimed %d, %v after %v", len(claims), err, got)
			}
		})
	})
	t.Run("a claim that is not extended is lost, and a waiting worker gets the next run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &queuetest.Memory{Lease: 10 * time.Second}
			first := one(t, m)
			start := time.Now()
			claims, err := m.Claim(t.Context(), 1)
			if err != nil || len(claims) != 1 || claims[0].Run().Run != 1 {
				t.Fatalf("claimed %v, %v", claims, err)
			}
			if got := time.Since(start); got != m.Lease {
				t.Errorf("claimed after %v, want %v", got, m.Lease)
			}
			if err := first.Check(t.Context()); !errors.Is(err, queue.ErrClaimLost) {
				t.Errorf("Check returned %v", err)
			}
		})
	})
	t.Run("a task past its deadline is lost and not retried", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &queuetest.Memory{Lease: time.Hour}
			m.AddTask(task.Definition{Deadline: time.Now().Add(time.Minute)})
			claims, _ := m.Claim(t.Context(), 1)
			time.Sleep(time.Minute) //nolint:forbidigo // passes time in a bubble
			if err := claims[0].Reclaim(t.Context()); !errors.Is(err, queue.ErrClaimLost) {
				t.Errorf("Reclaim returned %v", err)
			}
			if again, err := m.Claim(t.Context(), 1); len(again) != 0 || err != nil {
				t.Errorf("claimed %d, %v", len(again), err)
			}
		})
	})
}

func TestMemoryScripts(t *testing.T) {
	boom := errors.New("boom")
	t.Run("replies are used one by one, and then no more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := new(queuetest.Memory)
			c := one(t, m)
			m.Script(queuetest.Reclaim, queuetest.Reply{Err: boom}, queuetest.Reply{Delay: time.Second})
			start, until := time.Now(), c.TakenUntil()
			if err := c.Reclaim(t.Context()); !errors.Is(err, boom) || !c.TakenUntil().Equal(until) {
				t.Errorf("first reclaim: %v, until %v", err, c.TakenUntil())
			}
			if err := c.Reclaim(t.Context()); err != nil || time.Since(start) != time.Second {
				t.Errorf("second reclaim: %v after %v", err, time.Since(start))
			}
			if err := c.Reclaim(t.Context()); err != nil || time.Since(start) != time.Second {
				t.Errorf("third reclaim: %v after %v", err, time.Since(start))
			}
			calls := m.Calls(queuetest.Reclaim)
			if len(calls) != 3 || calls[0].Run != c.Run() || calls[2].Time.Sub(calls[1].Time) != time.Second {
				t.Errorf("recorded %v", calls)
			}
			if all := m.Calls(); len(all) != 4 || all[0].Op != queuetest.Claim || all[0].N != 1 {
				t.Errorf("recorded %v", all)
			}
		})
	})
	t.Run("a slow grant survives cancellation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := new(queuetest.Memory)
			m.AddTask(task.Definition{})
			m.Script(queuetest.Claim, queuetest.Reply{Delay: 5 * time.Second, Applied: true})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			claims, err := m.Claim(ctx, 1)
			if len(claims) != 1 || err != nil {
				t.Errorf("claimed %d, %v", len(claims), err)
			}
		})
	})
	t.Run("a slow call ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := new(queuetest.Memory)
			c := one(t, m)
			m.On(queuetest.Resolve, func(queuetest.Call) queuetest.Reply { return queuetest.Reply{Delay: time.Hour} })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.Resolve(ctx, run.Resolution{Outcome: run.Completed}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Resolve returned %v", err)
			}
			if got := m.Resolution(c.Run()); got != (run.Resolution{}) {
				t.Errorf("resolved as %v", got)
			}
		})
	})
	t.Run("a lost answer has had its effect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := new(queuetest.Memory)
			c := one(t, m)
			m.Script(queuetest.Resolve, queuetest.Reply{Err: boom, Applied: true})
			want := run.Resolution{Outcome: run.Failed}
			if err := c.Resolve(t.Context(), want); !errors.Is(err, boom) {
				t.Errorf("Resolve returned %v", err)
			}
			if got, err := m.Resolved(t.Context(), c.Run()); got != want || err != nil {
				t.Errorf("resolved as %v, %v", got, err)
			}
		})
	})
}

func TestMemoryTakesArtifacts(t *testing.T) {
	exception := run.Resolution{Outcome: run.Exception, Reason: run.InternalError}
	for _, tt := range []struct {
		name  string
		do    func(*queuetest.Memory, queue.Claim) error
		after time.Duration
		want  bool
	}{
		{"while running", func(*queuetest.Memory, queue.Claim) error { return nil }, 0, true},
		{"after completion", func(_ *queuetest.Memory, c queue.Claim) error {
			return c.Resolve(context.Background(), run.Resolution{Outcome: run.Completed})
		}, 0, false},
		{"after an exception", func(_ *queuetest.Memory, c queue.Claim) error {
			return c.Resolve(context.Background(), exception)
		}, 19 * time.Minute, true},
		{"long after an exception", func(_ *queuetest.Memory, c queue.Claim) error {
			return c.Resolve(context.Background(), exception)
		}, 21 * time.Minute, false},
		{"of a canceled run", func(m *queuetest.Memory, c queue.Claim) error {
			m.Cancel(c.Run().Task)
			return nil
		}, time.Minute, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &queuetest.Memory{Lease: time.Hour}
				c := one(t, m)
				if err := tt.do(m, c); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.after) //nolint:forbidigo // passes time in a bubble
				if got := m.TakesArtifacts(c.Run()); got != tt.want {
					t.Errorf("takes artifacts: %t, want %t", got, tt.want)
				}
			})
		})
	}
}
