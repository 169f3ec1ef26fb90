package worker_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
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
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// enduringEngine is a scriptedEngine whose sandboxes outlive the process. A
// reattached one plays its script from the start.
type enduringEngine struct {
	*scriptedEngine
	orphans   []task.RunID
	discarded []task.RunID
	detached  chan struct{} // closed by Detach; nil if it is not called
}

func (e *enduringEngine) NewBuilder(ctx context.Context, o engine.Options) (engine.Builder, error) {
	b, err := e.scriptedEngine.NewBuilder(ctx, o)
	return &enduringBuilder{b, e}, err
}

type enduringBuilder struct {
	engine.Builder
	e *enduringEngine
}

func (b *enduringBuilder) Start(ctx context.Context) (engine.Sandbox, error) {
	s, err := b.Builder.Start(ctx)
	return enduringSandbox{s, b.e}, err
}

func (e *enduringEngine) Orphans(context.Context) ([]task.RunID, error) { return e.orphans, nil }

func (e *enduringEngine) Reattach(ctx context.Context, o engine.Options, _ tasklog.Position) (engine.Reattached, error) {
	b, err := e.NewBuilder(ctx, o)
	if err != nil {
		return nil, err
	}
	s, err := b.Start(ctx)
	if err != nil {
		return nil, err
	}
	return s.(enduringSandbox), nil
}

func (e *enduringEngine) Discard(_ context.Context, id task.RunID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.discarded = append(e.discarded, id)
	return nil
}

func (e *enduringEngine) Detach() error {
	close(e.detached)
	return nil
}

type enduringSandbox struct {
	engine.Sandbox
	e *enduringEngine
}

func (s enduringSandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.e.detached:
			cancel()
		case <-ctx.Done():
		}
	}()
	r, err := s.Sandbox.Wait(ctx)
	select {
	case <-s.e.detached:
		return nil, engine.ErrDetached
	default:
		return r, err
	}
}

func (s enduringSandbox) Kill(ctx context.Context) error {
	select {
	case <-s.e.detached:
		return nil
	default:
		return s.Sandbox.Kill(ctx)
	}
}

func (enduringSandbox) Started() time.Time { return time.Now().Add(-time.Minute) }

// leave has an earlier process claim a task, and leave it with records.
func (f *fixture) leave(j *journaltest.Memory, script string, records ...journal.Record) task.RunID {
	f.Helper()
	id := f.addTask(script)
	claims, err := f.queue.Claim(f.Context(), 1)
	if err != nil || len(claims) != 1 {
		f.Fatal("claim:", err)
	}
	entry := j.Begin(journal.Saved{Saved: queue.Save(claims[0])})
	for _, r := range records {
		entry.Add(r)
	}
	recording, err := f.logs.Record(id)
	if err != nil {
		f.Fatal(err)
	}
	tasklog.New(recording).Infof("said before")
	return id
}

// forgotten checks that the journal has nothing any more.
func (f *fixture) forgotten(j *journaltest.Memory) {
	f.Helper()
	if left, err := j.Runs(); err != nil || len(left) > 0 {
		f.Errorf("the journal still has %v, %v", left, err)
	}
}

func TestRunsOfAnEarlierProcess(t *testing.T) {
	running := []journal.Record{journal.Reached{State: run.Building}, journal.Started{At: time.Now()}, journal.Reached{State: run.Running}}
	for _, tt := range []struct {
		title   string
		script  string
		records []journal.Record
		orphan  bool
		want    run.Resolution
		log     string
	}{
		{"whose sandbox is there, go on", "sleep 3m", running, true, completed, "said before"},
		{"whose sandbox fails, fail", "fail", running, true, failed, "said before"},
		{"whose sandbox is gone, are given another run", "sleep 3m", running, false, exception(run.WorkerShutdown), "cannot go on with it"},
		{"that had not started, are given another run", "sleep 3m", nil, false, exception(run.WorkerShutdown), "cannot go on with it"},
		{
			"that were about to be reported, are", "fail",
			append(slices.Clone(running), journal.Resolving{Resolution: completed}), true, completed, "said before",
		},
	} {
		t.Run(tt.title, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine}
				f.deps.Journal, f.deps.Engine = j, e
				id := f.leave(j, tt.script, tt.records...)
				if tt.orphan {
					e.orphans = []task.RunID{id}
				}
				stray := task.RunID{Task: "stray"}
				e.orphans = append(e.orphans, stray)
				f.cfg.Capacity = 1
				start := time.Now()
				f.start()
				f.expect(id, tt.want, tt.log)
				if took := time.Since(start); tt.want.Outcome == run.Exception && took > time.Second {
					f.Errorf("it took %v", took)
				}
				f.shutDown()
				f.forgotten(j)
				if !slices.Contains(e.discarded, stray) {
					f.Error("a sandbox of which nobody knows is left")
				}
			})
		})
	}
}

// A worker that was killed after it had told the queue that the host goes away,
// and before it had saved what the task left.
func TestNextProcessSalvagesWhatIsLeft(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine}
		f.deps.Journal, f.deps.Engine = j, e
		s := f.salvaged()
		id := f.leave(j, "forever", journal.Started{At: time.Now()}, journal.Reached{State: run.Running},
			journal.Resolving{Resolution: exception(run.WorkerShutdown)})
		e.orphans = []task.RunID{id}
		start := time.Now()
		f.start()
		f.expect(id, exception(run.WorkerShutdown), "said before", "=== Task Finished ===")
		f.shutDown()
		f.forgotten(j)
		s.check(f, start, true)
	})
}

// A worker that starts again only once its claims are over leaves nothing of the
// runs either.
func TestRunsWhoseClaimIsLostBeforeTheyAreResumed(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.queue.Lease, f.queue.Retries = time.Minute, -1
		j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine}
		f.deps.Journal, f.deps.Engine = j, e
		id := f.leave(j, "sleep 3m", journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		f.sleep(2 * time.Minute)
		f.start()
		f.sleep(time.Second)
		if _, _, err := f.logs.Resume(id); !errors.Is(err, fs.ErrNotExist) {
			f.Errorf("the log is left: %v", err)
		}
		if n := f.engine.open(); n > 0 || f.engine.peak == 0 && !slices.Contains(e.discarded, id) {
			f.Errorf("the sandbox is left: %d", n)
		}
		f.shutDown()
		f.forgotten(j)
	})
}

// What a task took is told from its start, whichever process saw that.
func TestDurationOfARunOfAnEarlierProcess(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine}
		f.deps.Journal, f.deps.Engine = j, e
		id := f.leave(j, "sleep 3m", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		f.sleep(time.Minute)
		f.start()
		f.sleep(4 * time.Minute)
		f.expect(id, completed, "Task Duration: 4m0s")
		f.shutDown()
	})
}

// leaving starts a worker whose sandboxes outlive it, with a task.
func (f *fixture) leaving(script string) (*worker.Worker, task.RunID, *journaltest.Memory, *enduringEngine) {
	f.Helper()
	j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine, detached: make(chan struct{})}
	f.deps.Journal, f.deps.Engine = j, e
	id := f.addTask(script)
	w, err := worker.New(f.cfg, f.deps)
	if err != nil {
		f.Fatal(err)
	}
	go func() { f.done <- w.Run(f.Context()) }()
	return w, id, j, e
}

func TestWorkerMakesWayForTheNext(t *testing.T) {
	for _, tt := range []struct {
		title  string
		script string
		at     time.Duration // when the worker is to make way
		takes  time.Duration // until it has
		state  run.State     // in which it leaves the run; Done if it has not left it
	}{
		{"with a task that goes on", "sleep 3m", time.Minute, 0, run.Running},
		{"with a task that has almost ended", "sleep 1m", time.Minute - 1, 0, run.Running},
		{"with a sandbox that is about to start", "late", time.Second, 4 * time.Second, run.Running},
		{"with a sandbox that does not start", "deaf", time.Second, 30*time.Second + 5*time.Second, run.Building},
		{"with artifacts to be uploaded", "ok", time.Second, 9 * time.Second, run.Done},
	} {
		t.Run(tt.title, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "slow", stopped: func(ctx context.Context, _ engine.ResultSet) error {
					f.sleep(10 * time.Second)
					return ctx.Err()
				}}}
				w, id, j, e := f.leaving(tt.script)
				f.sleep(tt.at)
				start := time.Now()
				w.MakeWay()
				if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
					f.Errorf("the worker ended with %v", err)
				}
				if took := time.Since(start); took != tt.takes {
					f.Errorf("it took %v, want %v", took, tt.takes)
				}
				select {
				case <-e.detached:
				default:
					f.Error("sandboxes are not left")
				}
				left, err := j.Runs()
				if err != nil {
					f.Error(err)
				}
				if tt.state == run.Done {
					f.expect(id, completed)
					if len(left) > 0 {
						f.Errorf("the journal has %+v", left)
					}
					return
				}
				if len(left) != 1 || left[0].Run != id || left[0].State != tt.state || left[0].Started.IsZero() == (tt.state == run.Running) {
					f.Errorf("the journal has %+v", left)
				}
				f.sleep(2 * time.Hour)
				synctest.Wait()
				if got := f.queue.Resolution(id); got != (run.Resolution{}) {
					f.Errorf("the run was resolved as %v", got)
				}
				if again, err := j.Runs(); err != nil || len(again) != 1 || again[0].State != left[0].State {
					f.Errorf("then, the journal has %+v, %v", again, err)
				}
				f.sleep(1000 * time.Hour) // to the end of the script
			})
		})
	}
}

func TestWorkerThatDrainsDoesNotMakeWay(t *testing.T) {
	for _, tt := range []struct {
		title string
		stops bool // or lets runs finish
		late  bool // the notice comes when the worker is about to make way
		want  run.Resolution
	}{
		{"which stops its tasks", true, false, exception(run.WorkerShutdown)},
		{"which lets its tasks finish", false, false, completed},
		{"which is told to stop meanwhile", true, true, exception(run.WorkerShutdown)},
		{"which is told to let tasks finish meanwhile", false, true, completed},
	} {
		t.Run(tt.title, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				script := "sleep 3m"
				if tt.late {
					script = "deaf" // the sandbox starts in an hour
				}
				w, id, j, _ := f.leaving(script)
				f.sleep(time.Minute)
				n := interrupt.Notice{Cause: "test"}
				if tt.stops {
					n.Deadline = time.Now().Add(10 * time.Second)
				}
				notice := func() {
					f.notices <- n
					f.sleep(time.Millisecond)
				}
				if tt.late {
					w.MakeWay()
					f.sleep(time.Second)
					notice()
				} else {
					notice()
					w.MakeWay()
				}
				if err := <-f.done; err != nil {
					f.Errorf("the worker ended with %v", err)
				}
				f.expect(id, tt.want)
				f.forgotten(j)
				f.sleep(2 * time.Hour) // to the end of what is deaf
			})
		})
	}
}

func TestWorkerWithoutAJournalWaitsForItsRuns(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.addTask("sleep 3m")
		w, err := worker.New(f.cfg, f.deps)
		if err != nil {
			f.Fatal(err)
		}
		go func() { f.done <- w.Run(f.Context()) }()
		f.sleep(time.Minute)
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
		f.expect(id, completed)
	})
}

// Whoever runs the worker must not take the machine away from the next process.
func TestWorkerWithoutRunsMakesWay(t *testing.T) {
	bubble(t, func(f *fixture) {
		w, err := worker.New(f.cfg, f.deps)
		if err != nil {
			f.Fatal(err)
		}
		go func() { f.done <- w.Run(f.Context()) }()
		f.sleep(time.Minute)
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
	})
}

func TestJournalHasTheLeaseOfARun(t *testing.T) {
	bubble(t, func(f *fixture) {
		j := new(journaltest.Memory)
		f.deps.Journal = j
		id := f.addTask("sleep 1h")
		f.start()
		f.sleep(30 * time.Minute)
		synctest.Wait()
		left, err := j.Runs()
		if err != nil || len(left) != 1 || !left[0].TakenUntil.After(time.Now()) {
			f.Errorf("the journal has %+v, %v", left, err)
		}
		f.expect(id, completed)
		f.shutDown()
		f.forgotten(j)
	})
}

func TestSandboxesAreDiscardedWithoutAJournal(t *testing.T) {
	bubble(t, func(f *fixture) {
		stray := task.RunID{Task: "stray"}
		e := &enduringEngine{scriptedEngine: f.engine, orphans: []task.RunID{stray}}
		f.deps.Engine = e
		f.start()
		f.shutDown()
		if !slices.Contains(e.discarded, stray) {
			f.Error("a sandbox that nobody goes on with is left")
		}
	})
}

// unreadable is a journal with an entry that cannot be read for now.
type unreadable struct {
	journal.Journal
	runs, resume error // of these methods, if not nil
}

func (u unreadable) Runs() ([]journal.Saved, error) {
	if u.runs != nil {
		return nil, u.runs
	}
	return u.Journal.Runs()
}

func (u unreadable) Resume(id task.RunID) (journal.Entry, error) {
	if u.resume != nil {
		return nil, u.resume
	}
	return u.Journal.Resume(id)
}

func TestWorkerThatCannotReadItsJournalTouchesNothing(t *testing.T) {
	passing := errors.New("too many open files")
	for name, broken := range map[string]unreadable{
		"as it looks for runs": {runs: passing},
		"as it resumes one":    {resume: passing},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j := new(journaltest.Memory)
				id := f.leave(j, "ok", journal.Reached{State: run.Running}, journal.Started{At: time.Now()})
				broken.Journal = j
				e := &enduringEngine{scriptedEngine: f.engine, orphans: []task.RunID{id}}
				f.deps.Engine, f.deps.Journal = e, broken
				claims := len(f.queue.Calls())
				f.start()
				if err := f.stopped(); !errors.Is(err, passing) || !errors.Is(err, worker.ErrUnresumed) {
					f.Errorf("the worker ended with %v", err)
				}
				if len(e.discarded) > 0 || f.logs.Text(id) == "" || len(f.queue.Calls()) > claims {
					f.Errorf("discarded %v, log %q, calls of the queue %v", e.discarded, f.logs.Text(id), f.queue.Calls()[claims:])
				}
				f.deps.Journal = j // which the next process can read
				f.start()
				f.expect(id, completed, "said before")
				f.shutDown()
				f.forgotten(j)
			})
		})
	}
}
