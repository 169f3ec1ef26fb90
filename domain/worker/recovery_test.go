package worker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
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

// The engine has all that the task has printed: a log that cannot be read is no
// reason to lose the run.
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
