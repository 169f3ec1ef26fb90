package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// enduring gives the worker a journal, and an engine with sandboxes that outlive
// the process.
func (f *fixture) enduring() (*journaltest.Memory, *enduringEngine) {
	j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine, detached: make(chan struct{})}
	f.deps.Journal, f.deps.Engine = j, e
	return j, e
}

// unreadableLogs are logs of which none can be resumed, and none begun if begin
// is an error.
type unreadableLogs struct {
	tasklog.Recorder
	begin error
}

var errTooManyFiles = errors.New("too many open files")

func (unreadableLogs) Resume(task.RunID) (tasklog.Recording, tasklog.Position, error) {
	return nil, 0, errTooManyFiles
}

func (l unreadableLogs) Record(id task.RunID) (tasklog.Recording, error) {
	if l.begin != nil {
		return nil, l.begin
	}
	return l.Recorder.Record(id)
}

// What an earlier process has decided stands, whatever the next one is prevented
// from.
func TestDecidedResolutionIsReportedByTheNextProcess(t *testing.T) {
	for name, hinder := range map[string]func(*fixture){
		"that is told to stop": func(f *fixture) {
			f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "slow", newPart: func(plugin.Task) error {
				f.notices <- interrupt.Notice{Cause: "test", Deadline: time.Now().Add(10 * time.Second)}
				f.sleep(time.Second)
				return nil
			}}}
		},
		"that cannot read the log": func(f *fixture) { f.deps.Logs = unreadableLogs{f.logs, nil} },
		"that has no log at all":   func(f *fixture) { f.deps.Logs = unreadableLogs{f.logs, errTooManyFiles} },
	} {
		for _, decided := range []run.Resolution{completed, failed, exception(run.MalformedPayload)} {
			t.Run(name+", "+decided.String(), func(t *testing.T) {
				bubble(t, func(f *fixture) {
					j, e := f.enduring()
					id := f.leave(j, "forever", journal.Started{At: time.Now()}, journal.Reached{State: run.Finishing},
						journal.Resolving{Resolution: decided})
					e.orphans = []task.RunID{id}
					hinder(f)
					f.start()
					f.expect(id, decided)
					f.sleep(time.Minute)
					f.shutDown()
					f.forgotten(j)
				})
			})
		}
	}
}

// The engine has most of what the task has printed: a log that cannot be read is
// no reason to lose the run.
func TestRunWhoseLogCannotBeReadGoesOn(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := f.enduring()
		id := f.leave(j, "sleep 3m", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		f.deps.Logs = unreadableLogs{f.logs, nil}
		f.start()
		f.expect(id, completed, "output of the task")
		synctest.Wait()
		f.shutDown()
		f.forgotten(j)
	})
}

// witnessedEngine is a scriptedEngine that tells when tasks are ended.
type witnessedEngine struct {
	*scriptedEngine
	ending func(how string)
}

func (e *witnessedEngine) NewBuilder(ctx context.Context, o engine.Options) (engine.Builder, error) {
	b, err := e.scriptedEngine.NewBuilder(ctx, o)
	return &witnessedBuilder{b, e}, err
}

type witnessedBuilder struct {
	engine.Builder
	e *witnessedEngine
}

func (b *witnessedBuilder) Start(ctx context.Context) (engine.Sandbox, error) {
	s, err := b.Builder.Start(ctx)
	if err != nil {
		return nil, err
	}
	return &witnessedSandbox{s.(*heedfulSandbox), b.e}, nil
}

type witnessedSandbox struct {
	*heedfulSandbox
	e *witnessedEngine
}

func (s *witnessedSandbox) Kill(ctx context.Context) error {
	s.e.ending("kill")
	return s.heedfulSandbox.Kill(ctx)
}

func (s *witnessedSandbox) Abort(ctx context.Context) error {
	s.e.ending("abort")
	return s.heedfulSandbox.Abort(ctx)
}

func (s *witnessedSandbox) Interrupt(ctx context.Context, i engine.Interruption) error {
	s.e.ending("tell")
	return s.heedfulSandbox.Interrupt(ctx, i)
}

// slowJournal is a journal on a disk that takes its time.
type slowJournal struct{ *journaltest.Memory }

func (j slowJournal) Begin(s journal.Saved) journal.Entry { return slowEntry{j.Memory.Begin(s)} }

type slowEntry struct{ journal.Entry }

func (e slowEntry) Add(r journal.Record) {
	time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the time of a bubble
	e.Entry.Add(r)
}

// A process that is killed right after it has ended a task leaves the next one a
// sandbox that has ended: which must not be taken for the task's own doing.
func TestTasksAreEndedOnceItIsWrittenDownWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		how    string
		stop   func(*fixture, task.RunID)
		want   run.Resolution // none if the run is abandoned
	}{
		"by a shutdown that leaves no time": {"ignore", "kill", func(f *fixture, _ task.RunID) {
			f.notices <- interrupt.Notice{Cause: "test", Deadline: time.Now()}
		}, exception(run.WorkerShutdown)},
		"by a shutdown that leaves some": {"ignore", "tell", func(f *fixture, _ task.RunID) {
			f.notices <- interrupt.Notice{Cause: "test", Deadline: time.Now().Add(time.Minute)}
		}, exception(run.WorkerShutdown)},
		"by a fault": {"ignore", "kill", nil, exception(run.InternalError)},
		"by a cancellation": {"ignore", "abort", func(f *fixture, id task.RunID) {
			f.queue.Cancel(id.Task)
		}, run.Resolution{}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, saved := new(journaltest.Memory), []journal.Saved{}
				f.deps.Journal = slowJournal{j}
				f.deps.Engine = &witnessedEngine{f.engine, func(how string) {
					left, err := j.Runs()
					if err != nil || len(left) != 1 {
						f.Errorf("the journal has %v, %v", left, err)
					}
					f.mu.Lock()
					defer f.mu.Unlock()
					if how == tt.how {
						saved = append(saved, left...)
					}
				}}
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "test", started: func(context.Context, engine.Sandbox) error {
					if tt.stop == nil {
						return errors.New("boom")
					}
					return nil
				}}}
				id := f.addTask(tt.script)
				f.start()
				f.sleep(10 * time.Second)
				if tt.stop != nil {
					tt.stop(f, id)
				}
				f.sleep(2 * time.Minute)
				f.shutDown()
				if len(saved) == 0 {
					f.Fatalf("no %s", tt.how)
				}
				first := saved[0]
				if tt.want == (run.Resolution{}) && first.State != run.Disposing || tt.want != (run.Resolution{}) && (first.Resolution == nil || *first.Resolution != tt.want) {
					f.Errorf("before the %s the journal has state %v, resolution %v; want %v", tt.how, first.State, first.Resolution, tt.want)
				}
			})
		})
	}
}

// A worker that is stopped while the queue is out of reach.
func TestRunThatCouldNotBeReportedIsReportedByTheNextProcess(t *testing.T) {
	for _, tt := range []struct {
		title  string
		script string
		away   time.Duration // from the end of the worker to the start of the next
		want   run.Resolution
	}{
		{"with what was decided by the stop", "forever", time.Minute, exception(run.WorkerShutdown)},
		{"with what was decided before", "ok", time.Minute, completed},
		{"unless its lease is over", "ok", time.Hour, run.Resolution{}},
	} {
		t.Run(tt.title, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.queue.Retries = -1
				j, _ := f.enduring()
				var stored string
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "log", finish: func(_ context.Context, _ run.Resolution, l plugin.Log) error {
					r, err := l.Open()
					if err != nil {
						return err
					}
					text, err := io.ReadAll(r)
					stored = string(text)
					return err
				}}}
				id := f.addTask(tt.script)
				f.queue.On(queuetest.Resolve, func(queuetest.Call) queuetest.Reply { return queuetest.Reply{Delay: 24 * time.Hour} })
				f.start()
				f.sleep(10 * time.Second)
				f.shutDown()
				f.sleep(tt.away)
				f.queue.On(queuetest.Resolve, nil)
				f.start()
				f.sleep(time.Minute)
				f.shutDown()
				if got := f.queue.Resolution(id); got != tt.want {
					f.Errorf("resolved %v, want %v", got, tt.want)
				}
				if !strings.Contains(stored, "output of the task") {
					f.Errorf("the log is %q", stored)
				}
				f.forgotten(j)
				if _, _, err := f.logs.Resume(id); !errors.Is(err, fs.ErrNotExist) {
					f.Errorf("the log is left: %v", err)
				}
			})
		})
	}
}

// The journal has times of a clock that may have been set since: what a lease is
// now, the queue knows.
func TestLeaseOfARunOutlivesAClockThatIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": 2 * time.Hour, "forward": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, e := f.enduring()
				id := f.leave(j, "sleep 1h", journal.Started{At: time.Now()}, journal.Reached{State: run.Running},
					journal.Leased{TakenUntil: time.Now().Add(by)})
				e.orphans = []task.RunID{id}
				f.sleep(15 * time.Minute) // of 20 that the lease has
				f.start()
				f.sleep(2 * time.Hour)
				if got := f.queue.Resolution(id); got != completed {
					f.Errorf("resolved %v, want %v", got, completed)
				}
				f.shutDown()
				f.forgotten(j)
			})
		})
	}
}

func TestReportAfterAClockIsSetForwardIsNotTakenForALoss(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, _ := f.enduring()
		stored := false
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
			stored = true
			return nil
		}}}
		id := f.leave(j, "ok", journal.Resolving{Resolution: exception(run.InternalError)},
			journal.Leased{TakenUntil: time.Now().Add(-time.Hour)})
		f.queue.Script(queuetest.Resolve, queuetest.Reply{Delay: 2 * time.Second}) // until the answer comes
		f.queue.Script(queuetest.Reclaim, queuetest.Reply{Delay: time.Second, Err: queue.ErrClaimLost})
		f.start()
		f.expect(id, exception(run.InternalError))
		f.sleep(time.Minute)
		synctest.Wait()
		if !stored {
			f.Error("the log is not stored")
		}
		f.shutDown()
		f.forgotten(j)
	})
}

// The worker was about to end the task: what is left of it says nothing.
func TestRunThatAnEarlierProcessHadAbandonedDoesNotGoOn(t *testing.T) {
	for _, canceled := range []bool{false, true} {
		t.Run(fmt.Sprintf("the queue knows: %v", canceled), func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, e := f.enduring()
				id := f.leave(j, "fail", journal.Started{At: time.Now()}, journal.Reached{State: run.Running}, journal.Reached{State: run.Disposing})
				e.orphans = []task.RunID{id}
				want := exception(run.WorkerShutdown) // lest the queue wait for the end of the claim
				if canceled {
					f.queue.Cancel(id.Task)
					want = run.Resolution{}
				}
				f.start()
				f.sleep(time.Second)
				if got := f.queue.Resolution(id); got != want {
					f.Errorf("resolved %v, want %v", got, want)
				}
				f.shutDown()
				f.forgotten(j)
				if !slices.Contains(e.discarded, id) {
					f.Error("the sandbox is left")
				}
			})
		})
	}
}

// blindEngine is an enduringEngine that cannot tell for now what sandboxes there are.
type blindEngine struct{ *enduringEngine }

func (blindEngine) Orphans(context.Context) ([]task.RunID, error) {
	return nil, errors.New("no connection to the daemon")
}

// Tasks that go on must not be given another run.
func TestWorkerThatCannotTellItsSandboxesTouchesNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := f.enduring()
		id := f.leave(j, "ok", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		f.deps.Engine = blindEngine{e}
		f.start()
		if err := f.stopped(); !errors.Is(err, worker.ErrUnresumed) {
			f.Errorf("the worker ended with %v", err)
		}
		if got := f.queue.Resolution(id); got != (run.Resolution{}) || len(e.discarded) > 0 {
			f.Errorf("resolved %v, discarded %v", got, e.discarded)
		}
		f.deps.Engine = e // the next process can tell
		f.start()
		f.expect(id, completed, "said before")
		f.shutDown()
		f.forgotten(j)
	})
}

// lateJournal is a journal that takes its time to begin an entry.
type lateJournal struct{ *journaltest.Memory }

func (j lateJournal) Begin(s journal.Saved) journal.Entry {
	time.Sleep(time.Second) //nolint:forbidigo // the time of a bubble
	return j.Memory.Begin(s)
}

// A run that was claimed just now has no sandbox that goes on, either.
func TestWorkerThatMakesWayLetsARunBegin(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, _ := f.enduring()
		f.deps.Journal = lateJournal{j}
		f.addTask("sleep 3m")
		w, err := worker.New(f.cfg, f.deps)
		if err != nil {
			f.Fatal(err)
		}
		go func() { f.done <- w.Run(f.Context()) }()
		f.sleep(time.Second / 2)
		start := time.Now()
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
		if took := time.Since(start); took > time.Second {
			f.Errorf("it took %v", took)
		}
		if left, err := j.Runs(); err != nil || len(left) != 1 || left[0].State != run.Running {
			f.Errorf("the journal has %+v, %v", left, err)
		}
		f.sleep(time.Hour) // to the end of the script
	})
}
