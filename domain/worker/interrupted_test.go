package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

// telling is that a task was told of an interruption.
type telling struct {
	At   time.Time
	What engine.Interruption
}

// heedfulSandbox is one that tells its task of interruptions.
type heedfulSandbox struct {
	*scriptedSandbox
	takes time.Duration // from when the task is told to stop until it ends
}

func (s *heedfulSandbox) Interrupt(ctx context.Context, i engine.Interruption) error {
	s.e.mu.Lock()
	s.e.told = append(s.e.told, telling{time.Now(), i})
	mute := s.e.mute
	s.e.mu.Unlock()
	if mute {
		<-ctx.Done()
		return ctx.Err()
	}
	if i.Stop {
		time.AfterFunc(s.takes, func() {
			select {
			case s.end <- "heed":
			default:
			}
		})
	}
	return nil
}

// salvaged has a plugin note when salvage was called, and with what.
func (f *fixture) salvaged() *salvaging {
	s := &salvaging{}
	f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
		name: "test",
		salvage: func(_ context.Context, _ run.Reason, r engine.ResultSet) error {
			s.at, s.saw = time.Now(), r
			return nil
		},
	}}
	return s
}

type salvaging struct {
	at  time.Time
	saw engine.ResultSet
}

// check checks when there was something to salvage of what kind of end.
func (s *salvaging) check(f *fixture, at time.Time, killed bool) {
	f.Helper()
	if s.saw == nil {
		f.Fatal("there was nothing to salvage from the sandbox")
	}
	if got := s.saw.Result().Killed; got != killed {
		f.Errorf("the task was killed: %t, want %t", got, killed)
	}
	if !s.at.Equal(at) {
		f.Errorf("salvaging began at %v, want %v", s.at, at)
	}
}

// reportedAtOnce checks that a run is reported within a second.
func (f *fixture) reportedAtOnce(since time.Time, got run.Resolution) {
	f.Helper()
	if got != exception(run.WorkerShutdown) {
		f.Errorf("resolved %v", got)
	}
	if took := time.Since(since); took > time.Second {
		f.Errorf("worker-shutdown was reported after %v", took)
	}
}

func TestShutdownIsReportedWhateverTheHooksDo(t *testing.T) {
	// Each hook ignores its context for a long time.
	busy := func() error { <-time.After(27 * time.Second); return nil }
	for name, p := range map[string]*scriptedPlugin{
		"while it prepares":   {prepare: func(context.Context) error { return busy() }},
		"while it runs":       {},
		"while it uploads":    {stopped: func(context.Context, engine.ResultSet) error { return busy() }},
		"while it stores log": {finish: func(context.Context, run.Resolution, plugin.Log) error { return busy() }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				p.name = "busy"
				f.deps.Plugins = []plugin.Plugin{p}
				script := "ok"
				if name == "while it runs" {
					script = "forever"
				}
				id := f.addTask(script)
				f.start()
				f.sleep(time.Second)
				notice := time.Now()
				f.notices <- interrupt.Notice{Cause: "spot interruption", Deadline: notice.Add(2 * time.Minute)}
				if got := f.resolution(id); got != exception(run.WorkerShutdown) {
					f.Errorf("resolved %v", got)
				}
				if took := time.Since(notice); took > time.Second {
					f.Errorf("worker-shutdown was reported after %v", took)
				}
				if err := f.stopped(); err != nil {
					f.Error(err)
				}
				if text := f.logs.Text(id); name == "while it runs" && !strings.Contains(text, "worker shutdown: spot interruption") {
					f.Errorf("the log does not say what ended the task:\n%s", text)
				}
			})
		})
	}
}

func TestDrainLetsRunningTasksFinish(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.addTask("sleep 1h")
		f.start()
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "drain"}
		synctest.Wait()
		later := f.addTask("ok")
		f.expect(id, completed)
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		if got := f.queue.Resolution(later); got != (run.Resolution{}) {
			f.Errorf("a draining worker took a task that came later: %v", got)
		}
	})
}

func TestMoreUrgentNoticeShortensTheDrain(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.addTask("forever")
		f.start()
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "drain"}
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "now", Deadline: time.Now().Add(time.Minute)}
		f.expect(id, exception(run.WorkerShutdown))
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
	})
}

func TestTaskThatHeedsAnInterruptionEndsInItsOwnWay(t *testing.T) {
	bubble(t, func(f *fixture) {
		s := f.salvaged()
		id := f.addTask("heed 5s")
		f.start()
		f.sleep(time.Second)
		notice := time.Now()
		f.notices <- interrupt.Notice{Cause: "spot interruption", Deadline: notice.Add(2 * time.Minute)}
		f.reportedAtOnce(notice, f.resolution(id))
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		s.check(f, notice.Add(5*time.Second), false)
		want := []telling{{notice, engine.Interruption{Cause: "spot interruption", Deadline: notice.Add(30 * time.Second), Stop: true}}}
		if diff := cmp.Diff(want, f.engine.told); diff != "" {
			f.Errorf("what the task was told (-want +got):\n%s", diff)
		}
		for _, text := range []string{"worker shutdown: spot interruption", "The task is told to stop, and has until 2000-01-01T00:00:31Z to end"} {
			if log := f.logs.Text(id); !strings.Contains(log, text) {
				f.Errorf("the log lacks %q:\n%s", text, log)
			}
		}
	})
}

func TestTaskThatIgnoresAnInterruptionIsKilledInTime(t *testing.T) {
	for _, tt := range []struct {
		name        string
		left, grace time.Duration
		killed      time.Duration // after the notice
	}{
		{"after the grace", 2 * time.Minute, 0, 30 * time.Second},
		{"after a grace that was configured", 2 * time.Minute, 50 * time.Second, 50 * time.Second},
		{"after half of the time that is left", 30 * time.Second, 0, 15 * time.Second},
		{"at once where no time is left", 0, 0, 0},
		{"at once where it is past the deadline", -time.Second, 0, 0},
		{"at once where there is no grace", 2 * time.Minute, -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.cfg.Grace = tt.grace
				s := f.salvaged()
				id := f.addTask("ignore")
				f.start()
				f.sleep(time.Second)
				notice := time.Now()
				f.notices <- interrupt.Notice{Cause: "test", Deadline: notice.Add(tt.left)}
				f.reportedAtOnce(notice, f.resolution(id))
				if err := f.stopped(); err != nil {
					f.Error(err)
				}
				s.check(f, notice.Add(tt.killed), true)
				if says := strings.Contains(f.logs.Text(id), "The task has not ended in time, and is killed"); says != (tt.killed > 0) {
					f.Errorf("the log says: %t:\n%s", says, f.logs.Text(id))
				}
			})
		})
	}
}

func TestTaskIsStoppedWhateverBecomesOfTellingIt(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.engine.mute = true
		s := f.salvaged()
		id := f.addTask("ignore")
		f.start()
		f.sleep(time.Second)
		notice := time.Now()
		f.notices <- interrupt.Notice{Cause: "test", Deadline: notice.Add(20 * time.Second)}
		f.reportedAtOnce(notice, f.resolution(id))
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		s.check(f, notice.Add(10*time.Second), true)
	})
}

func TestEarlierDeadlineCutsTheTimeOfTasks(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name          string
		first         time.Duration // deadline
		after, second time.Duration // when the second notice comes, and its deadline
		killed        time.Duration
	}{
		{"an earlier one", 120 * s, 10 * s, 20 * s, 15 * s},
		{"one that leaves no time", 120 * s, 10 * s, 10 * s, 10 * s},
		{"a later one", 30 * s, 10 * s, 100 * s, 15 * s},
		{"one that would leave more time", 30 * s, 14 * s, 29 * s, 15 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				s := f.salvaged()
				f.addTask("ignore")
				f.start()
				f.sleep(time.Second)
				start := time.Now()
				f.notices <- interrupt.Notice{Cause: "first", Deadline: start.Add(tt.first)}
				f.sleep(tt.after)
				f.notices <- interrupt.Notice{Cause: "second", Deadline: start.Add(tt.second)}
				if err := f.stopped(); err != nil {
					f.Error(err)
				}
				s.check(f, start.Add(tt.killed), true)
				if last := f.engine.told[len(f.engine.told)-1]; tt.killed > tt.after && !last.What.Deadline.Equal(start.Add(tt.killed)) {
					f.Errorf("the task was last told %+v", last)
				}
			})
		})
	}
}

func TestNoticeThatLeavesTimeLetsTasksFinish(t *testing.T) {
	bubble(t, func(f *fixture) {
		short, long := f.addTask("sleep 40m"), f.addTask("ignore")
		f.start()
		f.sleep(time.Minute)
		start := time.Now()
		f.notices <- interrupt.Notice{Cause: "retirement", Deadline: start.Add(time.Hour)}
		f.expect(short, completed)
		stop := start.Add(55 * time.Minute)
		f.reportedAtOnce(stop, f.resolution(long))
		if time.Now().Before(stop) {
			f.Errorf("a task was stopped %v early", time.Until(stop))
		}
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		kill := stop.Add(30 * time.Second)
		want := []telling{
			{start, engine.Interruption{Cause: "retirement", Deadline: kill}},
			{stop, engine.Interruption{Cause: "retirement", Deadline: kill, Stop: true}},
		}
		if diff := cmp.Diff(want, f.engine.told); diff != "" {
			f.Errorf("what the task was told (-want +got):\n%s", diff)
		}
	})
}

func TestEarlierDeadlineTakesBackTheTimeThatWasLeft(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.addTask("heed 1s")
		f.start()
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "retirement", Deadline: time.Now().Add(time.Hour)}
		f.sleep(time.Minute)
		notice := time.Now()
		f.notices <- interrupt.Notice{Cause: "spot interruption", Deadline: notice.Add(2 * time.Minute)}
		f.reportedAtOnce(notice, f.resolution(id))
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		if took := time.Since(notice); took > 2*time.Second {
			f.Errorf("the worker ended after %v", took)
		}
	})
}

func TestTasksAreToldOfADrainThatLetsThemFinish(t *testing.T) {
	bubble(t, func(f *fixture) {
		prepared := make(chan struct{})
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
			name:    "test",
			prepare: func(context.Context) error { <-prepared; return nil },
		}}
		id := f.addTask("heed 1s")
		f.start()
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "rebalance recommendation"}
		f.sleep(time.Minute)
		close(prepared) // so that the sandbox is younger than the notice
		f.sleep(time.Minute)
		f.notices <- interrupt.Notice{Cause: "another"}
		f.sleep(time.Minute)
		if got := f.queue.Resolution(id); got != (run.Resolution{}) {
			f.Errorf("the run was resolved as %v", got)
		}
		want := []engine.Interruption{{Cause: "rebalance recommendation"}}
		var got []engine.Interruption
		synctest.Wait() // which makes what the worker has written visible
		for _, t := range f.engine.told {
			got = append(got, t.What)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			f.Errorf("what the task was told (-want +got):\n%s", diff)
		}
		f.shutDown()
	})
}

func TestSandboxThatStartsAfterItsRunWasStoppedIsKilled(t *testing.T) {
	bubble(t, func(f *fixture) {
		s := f.salvaged()
		id := f.addTask("late")
		f.start()
		f.sleep(time.Second)
		notice := time.Now()
		f.notices <- interrupt.Notice{Cause: "test", Deadline: notice.Add(2 * time.Minute)}
		f.reportedAtOnce(notice, f.resolution(id))
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
		s.check(f, notice.Add(4*time.Second), true)
	})
}

// Whatever takes all the time there is, the log is stored.
func TestLogHasTimeOfItsOwn(t *testing.T) {
	for _, left := range []time.Duration{0, 30 * time.Second, 2 * time.Minute} {
		bubble(t, func(f *fixture) {
			var ended time.Time
			var stored error
			f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
				name: "test",
				salvage: func(ctx context.Context, _ run.Reason, _ engine.ResultSet) error {
					<-ctx.Done()
					ended = time.Now()
					return ctx.Err()
				},
				finish: func(ctx context.Context, _ run.Resolution, _ plugin.Log) error {
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
						stored = errors.New("there was no time for the log")
					}
					return stored
				},
			}}
			f.addTask("forever")
			f.start()
			f.sleep(time.Second)
			notice := time.Now()
			f.notices <- interrupt.Notice{Cause: "test", Deadline: notice.Add(left)}
			if err := errors.Join(f.stopped(), stored); err != nil {
				f.Error(err)
			}
			if end := notice.Add(max(left, 5*time.Second)); !ended.Before(end) || time.Now().After(end) {
				f.Errorf("with %v left, salvaging ended after %v", left, ended.Sub(notice))
			}
			if left > 0 && ended.Sub(notice) < left*2/3 {
				f.Errorf("with %v left, salvaging ended after %v", left, ended.Sub(notice))
			}
		})
	}
}

// A run that is given up for another reason than that the worker stops has nobody
// who would tell its task.
func TestTaskOfARunThatIsGivenUpIsKilledAtOnce(t *testing.T) {
	bubble(t, func(f *fixture) {
		s := f.salvaged()
		f.deps.Plugins = append(f.deps.Plugins, &scriptedPlugin{name: "lost", started: func(context.Context, engine.Sandbox) error {
			return fault.Shutdownf("what the task needs is gone")
		}})
		f.queue.Retries = -1
		start := time.Now()
		id := f.addTask("ignore")
		f.start()
		f.expect(id, exception(run.WorkerShutdown))
		f.sleep(time.Hour)
		synctest.Wait()
		s.check(f, start, true)
		f.shutDown()
	})
}
