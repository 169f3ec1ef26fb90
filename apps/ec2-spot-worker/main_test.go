package main

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

// TestMain makes the test binary the worker's, and a supervisor, too.
func TestMain(m *testing.M) {
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if filepath.Base(os.Args[0]) == app {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}
