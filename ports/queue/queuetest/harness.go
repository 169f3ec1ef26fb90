package queuetest

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// NewHarness returns m as the queue under test.
func NewHarness(m *Memory) Harness { return memoryHarness{m} }

type memoryHarness struct{ m *Memory }

func (h memoryHarness) Queue(testing.TB) queue.Queue { return h.m }

func (h memoryHarness) AddTask(_ testing.TB, d task.Definition) task.ID { return h.m.AddTask(d) }

func (h memoryHarness) Cancel(_ testing.TB, id task.ID) { h.m.Cancel(id) }

func (h memoryHarness) Expire(_ testing.TB, id task.RunID) { h.m.Expire(id) }

func (h memoryHarness) Resolution(_ testing.TB, id task.RunID) run.Resolution {
	return h.m.Resolution(id)
}
