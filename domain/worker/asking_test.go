package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

// lingering is a queue that still grants claims for a grace after a call for
// them was canceled, as adapters do that wait for the answer.
type lingering struct {
	*queuetest.Memory
	grace time.Duration
}

func (q lingering) Claim(ctx context.Context, n int) ([]queue.Claim, error) {
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(q.grace):
			cancel()
		case <-held.Done():
		}
	})()
	return q.Memory.Claim(held, n)
}

// A worker that is stopped while it asks for more work is not granted the runs
// that the queue makes of its own reports.
func TestStoppedWorkerIsNotGrantedWhatItsReportsMake(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grace time.Duration
		late  bool // another task is granted while the call is being canceled
		own   int  // runs of the first task that the worker reports
	}{
		{name: "the call ends at once", own: 1},
		{name: "the call ends after a grace", grace: 500 * time.Millisecond, own: 1},
		{name: "the call grants something meanwhile", grace: 500 * time.Millisecond, late: true, own: 1},
		{name: "the call does not end before the report is due", grace: time.Hour, own: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.deps.Queue = lingering{f.queue, tt.grace}
				first := f.addTask("forever")
				f.start()
				f.sleep(time.Second)
				notice := time.Now()
				f.notices <- interrupt.Notice{Cause: "spot interruption", Deadline: notice.Add(2 * time.Minute)}
				ids := []task.RunID{first}
				if tt.late {
					f.sleep(200 * time.Millisecond)
					ids = append(ids, f.addTask("forever"))
				}
				for _, id := range ids {
					f.reportedAtOnce(notice, f.resolution(id))
				}
				if err := f.stopped(); err != nil {
					f.Error(err)
				}
				reports := map[task.ID]int{}
				for _, c := range f.queue.Calls(queuetest.Resolve) {
					reports[c.Run.Task]++
				}
				for i, id := range ids {
					want := 1
					if id == first {
						want = tt.own
					}
					if reports[id.Task] != want {
						f.Errorf("%d runs of task %d were reported, want %d", reports[id.Task], i, want)
					}
				}
			})
		})
	}
}

// A worker that asks for nothing has no reason to wait.
func TestStoppedWorkerThatIsFullReportsAtOnce(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Capacity = 1
		f.deps.Queue = lingering{f.queue, time.Hour}
		id := f.addTask("forever")
		f.start()
		f.sleep(time.Second)
		notice := time.Now()
		f.notices <- interrupt.Notice{Cause: "spot interruption", Deadline: notice.Add(2 * time.Minute)}
		if got := f.resolution(id); got != exception(run.WorkerShutdown) {
			f.Errorf("resolved %v", got)
		}
		if took := time.Since(notice); took > 0 {
			f.Errorf("worker-shutdown was reported after %v", took)
		}
		if err := f.stopped(); err != nil {
			f.Error(err)
		}
	})
}
