package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/apps/internal/heir"
)

// TestMain makes the test binary the worker's, and a supervisor and an heir, too.
func TestMain(m *testing.M) {
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if heir.Invoked() {
		os.Exit(heir.Main())
	}
	if os.Getenv(dockerVariable) != "" && filepath.Base(os.Args[0]) != "dc-linux-worker" {
		os.Exit(dockertest.Main(m, &daemon))
	}
	testscript.Main(leakChecked{m}, map[string]func(){"dc-linux-worker": main})
}

// leakChecked runs the tests, and then looks for goroutines that they left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}
