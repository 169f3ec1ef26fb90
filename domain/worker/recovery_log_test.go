package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

// succeed starts the next process, which finds the sandbox of a run.
func (f *fixture) succeed(id task.RunID) {
	f.Helper()
	f.engine = &scriptedEngine{}
	f.deps.Engine = &enduringEngine{scriptedEngine: f.engine, orphans: []task.RunID{id}, detached: make(chan struct{})}
	f.start()
}

// What a worker says of a task that has ended is said again by the next one, which
// does again what the first has not finished.
func TestLogOfARunThatIsFinishedTwiceSaysNothingTwice(t *testing.T) {
	bubble(t, func(f *fixture) {
		stored, uploading := "", true
		var say func(string, ...any)
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
			name: "log",
			newPart: func(p plugin.Task) error {
				say = p.Log.Infof
				return nil
			},
			stopped: func(context.Context, engine.ResultSet) error {
				say("collected")
				return nil
			},
			finish: func(ctx context.Context, _ run.Resolution, l plugin.Log) error {
				if uploading {
					<-ctx.Done()
					return ctx.Err()
				}
				r, err := l.Open()
				if err != nil {
					return err
				}
				text, err := io.ReadAll(r)
				stored = string(text)
				return err
			},
		}}
		w, id, j, _ := f.leaving("ok")
		f.sleep(time.Second)
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
		uploading = false
		f.succeed(id)
		f.expect(id, completed)
		f.shutDown()
		f.forgotten(j)
		for _, line := range []string{"=== Task Starting ===", "collected", "=== Task Finished ==="} {
			if n := strings.Count(stored, line); n != 1 {
				f.Errorf("%q is %d times in the log:\n%s", line, n, stored)
			}
		}
	})
}

// What has ended a run is in its log, whichever process stores that.
func TestLogOfARunThatFailedWhileItWasCollectedSaysWhy(t *testing.T) {
	bubble(t, func(f *fixture) {
		stored := ""
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
			name:    "log",
			stopped: func(context.Context, engine.ResultSet) error { return fault.Malformedf("the artifact is refused") },
			finish: func(_ context.Context, _ run.Resolution, l plugin.Log) error {
				r, err := l.Open()
				if err != nil {
					return err
				}
				text, err := io.ReadAll(r)
				stored = string(text)
				return err
			},
		}}
		f.queue.On(queuetest.Resolve, func(queuetest.Call) queuetest.Reply { return queuetest.Reply{Delay: 24 * time.Hour} })
		w, id, j, _ := f.leaving("ok")
		f.sleep(time.Second)
		w.MakeWay()
		if err := <-f.done; !errors.Is(err, worker.ErrLeft) {
			f.Errorf("the worker ended with %v", err)
		}
		f.queue.On(queuetest.Resolve, nil)
		f.succeed(id)
		f.expect(id, exception(run.MalformedPayload))
		f.sleep(time.Minute)
		f.shutDown()
		f.forgotten(j)
		if n := strings.Count(stored, "the artifact is refused"); n != 1 {
			f.Errorf("the reason is %d times in the log:\n%s", n, stored)
		}
	})
}

// A crash of the host may bring back a run that was over, of which the log is gone:
// that the queue has must stay.
func TestLogThatIsGoneReplacesNone(t *testing.T) {
	for _, orphan := range []bool{false, true} {
		t.Run(fmt.Sprintf("with a sandbox: %v", orphan), func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, e := f.enduring()
				stored := false
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
					stored = true
					return nil
				}}}
				id := f.leave(j, "forever", journal.Resolving{Resolution: exception(run.InternalError)})
				if err := f.logs.Keep(); err != nil {
					f.Fatal(err)
				}
				if orphan { // which still has what the task has printed
					e.orphans = []task.RunID{id}
				}
				f.start()
				f.expect(id, exception(run.InternalError))
				f.sleep(time.Minute)
				f.shutDown()
				f.forgotten(j)
				if stored != orphan {
					f.Errorf("a log is stored: %v, want %v", stored, orphan)
				}
			})
		})
	}
}
