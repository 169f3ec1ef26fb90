package devqueue_test

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// BenchmarkTask creates, claims and completes one task after another, with
// client and server in one process.
func BenchmarkTask(b *testing.B) {
	root := asRoot(b, open(b, devqueue.Config{}))
	for b.Loop() {
		id := create(b, root, nil)
		claimOne(b, root)
		if _, err := root.ReportCompleted(id, "0"); err != nil {
			b.Fatal(err)
		}
	}
}
