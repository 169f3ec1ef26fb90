package worker_test

import (
	"context"
	"errors"
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
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// stuckEngine is an enduringEngine that does not come to reattach a sandbox until
// it is let go of.
type stuckEngine struct {
	*enduringEngine
	until <-chan struct{}
}

func (e *stuckEngine) Reattach(context.Context, engine.Options, tasklog.Position) (engine.Reattached, error) {
	<-e.until
	return nil, engine.ErrDetached
}

// settler is a plugin that notes when runs of an earlier process are given up.
type settler struct {
	*scriptedPlugin
	settled chan struct{}
}

func (s settler) Settled(context.Context) error {
	close(s.settled)
	return nil
}

// What plugins keep for the run is needed by the next process.
func TestWorkerThatMakesWayWhileItResumesGivesUpNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := f.enduring()
		id := f.leave(j, "sleep 3m", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		f.deps.Engine = &stuckEngine{e, e.detached}
		s := settler{&scriptedPlugin{name: "settler"}, make(chan struct{})}
		f.deps.Plugins = []plugin.Plugin{s}
		w, err := worker.New(f.cfg, f.deps)
		if err != nil {
			f.Fatal(err)
		}
		go func() { f.done <- w.Run(f.Context()) }()
		f.sleep(time.Second)
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
		synctest.Wait()
		select {
		case <-s.settled:
			f.Error("the run is given up")
		default:
		}
		if left, err := j.Runs(); err != nil || len(left) != 1 {
			f.Errorf("the journal has %v, %v", left, err)
		}
	})
}

// An engine that hangs delays nothing but its own run.
func TestWorkerEndsWhereASandboxIsNeverReattached(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, e := f.enduring()
		id := f.leave(j, "sleep 3m", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
		e.orphans = []task.RunID{id}
		never := make(chan struct{})
		f.deps.Engine = &stuckEngine{e, never}
		s := settler{&scriptedPlugin{name: "settler"}, make(chan struct{})}
		f.deps.Plugins = []plugin.Plugin{s}
		f.start()
		f.sleep(time.Second)
		f.stop()
		f.expect(id, exception(run.WorkerShutdown))
		select {
		case err := <-f.done:
			if err != nil {
				f.Error(err)
			}
		case <-time.After(time.Hour):
			f.Error("the worker does not end")
		}
		close(never)
		synctest.Wait()
		f.forgotten(j)
	})
}

// slowSettler is a plugin that takes all the time it gets to give up what nobody
// goes on with.
type slowSettler struct{ *scriptedPlugin }

func (slowSettler) Settled(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// An engine that hangs must not keep the worker from its end.
func TestWorkerEndsThoughWhatWasLeftIsNotGivenUp(t *testing.T) {
	for name, j := range map[string]journal.Journal{"with a journal": new(journaltest.Memory), "without": nil} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.deps.Journal = j
				f.deps.Plugins = []plugin.Plugin{slowSettler{&scriptedPlugin{name: "settler"}}}
				f.start()
				f.sleep(time.Second)
				f.stop()
				select {
				case err := <-f.done:
					if err != nil {
						f.Error(err)
					}
				case <-time.After(time.Minute):
					f.Fatal("the worker does not end")
				}
			})
		})
	}
}

// hangingEngine is an enduringEngine that does not come to discard a sandbox.
type hangingEngine struct{ *enduringEngine }

func (hangingEngine) Discard(ctx context.Context, _ task.RunID) error {
	<-ctx.Done()
	return ctx.Err()
}

// A sandbox of which nobody knows must not keep the runs waiting that go on.
func TestRunsGoOnThoughASandboxIsNotDiscarded(t *testing.T) {
	for name, known := range map[string]bool{"with a journal": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, e := f.enduring()
				e.orphans = []task.RunID{{Task: "stray"}}
				f.deps.Engine = hangingEngine{e}
				var id task.RunID
				if known {
					id = f.leave(j, "ok", journal.Started{At: time.Now()}, journal.Reached{State: run.Running})
					e.orphans = append(e.orphans, id)
				} else {
					f.deps.Journal = nil
					id = f.addTask("ok")
				}
				f.start()
				f.sleep(time.Minute)
				if got := f.queue.Resolution(id); got != completed {
					f.Errorf("resolved %v, want %v", got, completed)
				}
				f.notices <- interrupt.Notice{Cause: "test", Deadline: time.Now()}
				select {
				case err := <-f.done:
					if err != nil {
						f.Error(err)
					}
				case <-time.After(time.Minute):
					f.Error("the worker does not end")
					f.stop()
				}
			})
		})
	}
}
