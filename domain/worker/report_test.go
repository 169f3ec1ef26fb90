package worker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

// A report that takes effect long before its answer arrives: meanwhile the run
// looks as if it were lost.
func TestReportIsNotTakenForALoss(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer time.Duration // after the queue has the report
		want   bool          // whether the log is stored
	}{
		{"while the lease lasts", 5 * time.Minute, true},
		{"after the lease", 30 * time.Minute, false},
	} {
		for _, earlier := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by an earlier process: %v", tt.name, earlier), func(t *testing.T) {
				bubble(t, func(f *fixture) {
					stored := false
					f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
						stored = true
						return nil
					}}}
					reported := false
					f.queue.On(queuetest.Resolve, func(queuetest.Call) queuetest.Reply {
						reported = true
						return queuetest.Reply{Delay: tt.answer}
					})
					f.queue.On(queuetest.Check, func(queuetest.Call) queuetest.Reply {
						if reported || earlier {
							return queuetest.Reply{Err: queue.ErrClaimLost}
						}
						return queuetest.Reply{}
					})
					if earlier {
						j := new(journaltest.Memory)
						f.deps.Journal = j
						f.leave(j, "wrong", journal.Resolving{Resolution: exception(run.MalformedPayload)})
					} else {
						f.addTask("wrong")
					}
					f.start()
					f.sleep(40 * time.Minute)
					synctest.Wait()
					if stored != tt.want {
						f.Errorf("the log is stored: %v, want %v", stored, tt.want)
					}
					f.shutDown()
				})
			})
		}
	}
}

// A process that finds the run lost before it has looked at it: the one before
// it has reported that.
func TestReportedRunOfAnEarlierProcessIsSalvaged(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Poll = time.Second
		j, e := new(journaltest.Memory), &enduringEngine{scriptedEngine: f.engine}
		f.deps.Journal, f.deps.Engine = j, e
		stored := false
		f.deps.Plugins = []plugin.Plugin{
			&scriptedPlugin{name: "slow", newPart: func(plugin.Task) error {
				f.sleep(time.Minute)
				return nil
			}},
			&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
				stored = true
				return nil
			}},
		}
		id := f.leave(j, "forever", journal.Started{At: time.Now()}, journal.Resolving{Resolution: exception(run.InternalError)})
		e.orphans = []task.RunID{id}
		f.queue.On(queuetest.Check, func(queuetest.Call) queuetest.Reply { return queuetest.Reply{Err: queue.ErrClaimLost} })
		f.start()
		f.expect(id, exception(run.InternalError))
		f.sleep(5 * time.Minute)
		synctest.Wait()
		if !stored {
			f.Error("the log is not stored")
		}
		f.shutDown()
		f.forgotten(j)
	})
}
