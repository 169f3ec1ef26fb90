package native

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

func TestMain(m *testing.M) {
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if dir := os.Getenv(workerVariable); dir != "" {
		os.Exit(beWorker(dir))
	}
	goleak.VerifyTestMain(m)
}
