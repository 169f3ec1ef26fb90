package artifacttest

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// NewHarness returns m, whose Queue must be set, as the stores under test.
func NewHarness(m *Memory) Harness { return memoryHarness{m} }

type memoryHarness struct{ m *Memory }

func (h memoryHarness) Opener(testing.TB) artifact.Opener { return h.m }

func (h memoryHarness) Claim(tb testing.TB) queue.Claim {
	tb.Helper()
	h.m.Queue.AddTask(task.Definition{})
	claims, err := h.m.Queue.Claim(tb.Context(), 1)
	if err != nil || len(claims) != 1 {
		tb.Fatalf("granted %d claims, %v", len(claims), err)
	}
	return claims[0]
}

func (h memoryHarness) Break(_ testing.TB, n int) { h.m.Break(n) }

func (h memoryHarness) Artifact(_ testing.TB, id task.RunID, name string) (Artifact, bool) {
	a, ok := h.m.Artifact(id, name)
	if ok && a.Op == Link {
		target, _ := h.m.Artifact(id, a.Target)
		a.Body, a.Encoding = target.Body, target.Encoding
	}
	return a, ok
}
