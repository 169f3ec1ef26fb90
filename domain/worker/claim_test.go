package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

func TestClaimsAsManyAsItHasSlotsFor(t *testing.T) {
	for _, tt := range []struct {
		name             string
		capacity         int
		wantFirst, total int
	}{
		{"one slot", 1, 1, 3},
		{"several slots", 8, 8, 20},
		{"more slots than one call can fill", 100, 32, 100},
		{"the greatest capacity", 250, 32, 260},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.cfg.Capacity = tt.capacity
				var ids []task.RunID
				for range tt.total {
					ids = append(ids, f.addTask("sleep 10m"))
				}
				f.start()
				f.sleep(time.Minute)
				synctest.Wait()
				if got := f.queue.Calls(queuetest.Claim)[0].N; got != tt.wantFirst {
					f.Errorf("the first call asked for %d runs, want %d", got, tt.wantFirst)
				}
				if got := f.engine.open(); got != tt.capacity && got != tt.total {
					f.Errorf("%d tasks run at once, want %d", got, tt.capacity)
				}
				for _, id := range ids {
					f.expect(id, completed)
				}
				if f.engine.peak > tt.capacity {
					f.Errorf("%d tasks ran at once, the capacity is %d", f.engine.peak, tt.capacity)
				}
				f.shutDown()
			})
		})
	}
}

func TestClaimsNothingWhileNoSlotIsFree(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Capacity = 1
		f.addTask("sleep 10m")
		f.start()
		f.sleep(9 * time.Minute)
		synctest.Wait()
		if got := len(f.queue.Calls(queuetest.Claim)); got != 1 {
			f.Errorf("%d calls for work, want 1", got)
		}
		f.shutDown()
	})
}

func TestBacksOffWhileTheQueueIsAway(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.queue.On(queuetest.Claim, func(queuetest.Call) queuetest.Reply {
			return queuetest.Reply{Err: errors.New("connection refused")}
		})
		f.start()
		f.sleep(time.Hour)
		calls := f.queue.Calls(queuetest.Claim)
		if len(calls) < 60 || len(calls) > 140 {
			f.Errorf("%d calls in an hour without a queue, want one in 30 to 60 seconds", len(calls))
		}
		f.queue.On(queuetest.Claim, nil)
		f.expect(f.addTask("ok"), completed)
		f.shutDown()
	})
}

func TestClaimGrantedWhileDrainingIsNotDropped(t *testing.T) {
	for _, tt := range []struct {
		name     string
		deadline time.Duration
		finishes bool
	}{
		{"it runs if running tasks may finish", 0, true},
		{"it is reported at once if not", time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				id := f.addTask("sleep 5m")
				stored := false
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
					stored = true
					return nil
				}}}
				f.queue.Script(queuetest.Claim, queuetest.Reply{Applied: true, Delay: 10 * time.Second})
				f.start()
				f.sleep(time.Second)
				n := interrupt.Notice{Cause: "test"}
				if tt.deadline > 0 {
					n.Deadline = time.Now().Add(tt.deadline)
				}
				f.notices <- n
				want := exception("worker-shutdown")
				if tt.finishes {
					want = completed
				}
				f.expect(id, want)
				if err := f.stopped(); err != nil {
					f.Error(err)
				}
				if !stored {
					f.Error("its log was not stored")
				}
			})
		})
	}
}

func TestReclaims(t *testing.T) {
	for _, lease := range []time.Duration{time.Minute, 20 * time.Minute, 3 * time.Hour} {
		t.Run("at two thirds of a lease of "+lease.String(), func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.queue.Lease = lease
				start := time.Now()
				id := f.addTask("sleep " + (2 * lease).String())
				f.start()
				f.expect(id, completed)
				calls := f.queue.Calls(queuetest.Reclaim)
				if len(calls) == 0 {
					f.Fatal("the run was never reclaimed")
				}
				at := float64(calls[0].Time.Sub(start)) / float64(lease)
				if at < 0.6 || at > 0.67 {
					f.Errorf("the first reclaim was at %.2f of the lease", at)
				}
				f.shutDown()
			})
		})
	}
}

func TestFailedReclaims(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		fail time.Duration // how long reclaiming fails, from the start
		want bool          // whether the run completes
	}{
		{"are retried until the lease is over", errors.New("500"), 19 * time.Minute, true},
		{"lose the claim when the lease is over", errors.New("500"), 3 * time.Hour, false},
		{"lose the claim at once if the queue says so", queue.ErrClaimLost, 3 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				start := time.Now()
				f.queue.On(queuetest.Reclaim, func(queuetest.Call) queuetest.Reply {
					if time.Since(start) < tt.fail {
						return queuetest.Reply{Err: tt.err}
					}
					return queuetest.Reply{}
				})
				f.queue.On(queuetest.Check, func(queuetest.Call) queuetest.Reply {
					return queuetest.Reply{Err: errors.New("500")}
				})
				id := f.addTask("sleep 50m")
				f.start()
				if tt.want {
					f.expect(id, completed)
					f.shutDown()
					return
				}
				f.sleep(21 * time.Minute)
				synctest.Wait()
				if len(f.queue.Calls(queuetest.Resolve)) != 0 {
					f.Error("a run whose claim is lost was reported")
				}
				f.mu.Lock()
				if len(f.reports) == 0 || f.reports[0].Resolution.Outcome.String() != "abandoned" {
					f.Errorf("reports are %v, want the run abandoned", f.reports)
				}
				f.mu.Unlock()
				f.shutDown()
			})
		})
	}
}

func TestCancellationIsNoticedWithinThePollInterval(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Poll = 7 * time.Second
		id := f.addTask("forever")
		f.start()
		f.sleep(time.Minute)
		f.queue.Cancel(id.Task)
		f.sleep(7 * time.Second)
		synctest.Wait()
		if n := f.engine.open(); n != 0 {
			f.Errorf("%d sandboxes are left after the cancellation", n)
		}
		if n := len(f.queue.Calls(queuetest.Resolve)); n != 0 {
			f.Error("a canceled run was reported")
		}
		f.shutDown()
	})
}

func TestFailingChecksSayNothingOfTheClaim(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.queue.On(queuetest.Check, func(queuetest.Call) queuetest.Reply {
			return queuetest.Reply{Err: errors.New("503")}
		})
		id := f.addTask("sleep 10m")
		f.start()
		f.expect(id, completed)
		f.shutDown()
	})
}

func TestTaskIsStoppedAtItsDeadline(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Poll = 100 * time.Hour
		f.queue.AddTask(task.Definition{Deadline: time.Now().Add(90 * time.Second), Payload: []byte(`{"script":"forever"}`)})
		f.start()
		f.sleep(89 * time.Second)
		synctest.Wait()
		if f.engine.open() != 1 {
			f.Error("the task does not run until its deadline")
		}
		f.sleep(time.Second)
		synctest.Wait()
		if f.engine.open() != 0 || len(f.queue.Calls(queuetest.Resolve)) != 0 {
			f.Error("the task runs past its deadline, or was reported")
		}
		f.shutDown()
	})
}

func TestRefusesNonsense(t *testing.T) {
	bubble(t, func(f *fixture) {
		for _, tt := range []struct {
			change func(*worker.Config, *worker.Deps)
			want   string
		}{
			{func(c *worker.Config, _ *worker.Deps) { c.Capacity = 251 }, "capacity is 251, must be 1 to 250"},
			{func(c *worker.Config, _ *worker.Deps) { c.Capacity = -1 }, "capacity is -1"},
			{func(_ *worker.Config, d *worker.Deps) {
				d.Plugins = []plugin.Plugin{&scriptedPlugin{name: "a"}, &scriptedPlugin{name: "a"}}
			}, "are called a"},
			{func(_ *worker.Config, d *worker.Deps) {
				d.Plugins = []plugin.Plugin{&scriptedPlugin{name: "scripted"}}
			}, "are called scripted"},
		} {
			cfg, deps := f.cfg, f.deps
			tt.change(&cfg, &deps)
			if _, err := worker.New(cfg, deps); err == nil || !strings.Contains(err.Error(), tt.want) {
				f.Errorf("got error %v, want %q", err, tt.want)
			}
		}
	})
}

func TestTellsOfRunsThatBeginBeforeTheyEnd(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Capacity = 1
		var told []string
		f.deps.Began = func(id task.RunID) { told = append(told, "began "+string(id.Task)) }
		f.deps.Observe = func(r worker.Report) { told = append(told, "ended "+string(r.Run.Task)) }
		first, second := f.addTask("sleep 1m"), f.addTask("sleep 1m")
		f.start()
		f.resolution(first)
		f.resolution(second)
		f.shutDown()
		want := []string{
			"began " + string(first.Task), "ended " + string(first.Task),
			"began " + string(second.Task), "ended " + string(second.Task),
		}
		if diff := cmp.Diff(want, told); diff != "" {
			f.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestClaimsNoMoreThanItsNumberOfTasks(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		capacity     int
	}{
		{"one after the other", "sleep 10m", 1},
		{"at once", "sleep 10m", 2},
		{"with slots to spare", "sleep 10m", 8},
		{"so short that it is over at once", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.cfg.Capacity, f.cfg.Tasks = tt.capacity, 3
				for range 10 {
					f.addTask(tt.script)
				}
				f.start()
				if err := f.stopped(); err != nil {
					f.Errorf("worker ended with %v", err)
				}
				if got := len(f.reports); got != 3 {
					f.Errorf("worker had %d runs, want 3", got)
				}
				for _, r := range f.reports {
					if r.Resolution != completed {
						f.Errorf("a run is %v, want %v", r.Resolution, completed)
					}
				}
			})
		})
	}
}
