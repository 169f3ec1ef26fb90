package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// dockerVariable is set for the process of a test that has a Docker daemon.
const dockerVariable = "E2E_DOCKER"

var daemon *dockertest.Daemon //nolint:gochecknoglobals // set before any test, where there is one

// withDocker runs a test in a process of its own that has a Docker daemon, in
// namespaces of their own.
func withDocker(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if daemon != nil {
		test(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), dockerVariable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}
