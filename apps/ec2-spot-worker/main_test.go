package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

var daemon *dockertest.Daemon //nolint:gochecknoglobals // set before any test

// TestMain makes the test binary the worker's, and a supervisor, too. Tests have
// a Docker daemon, and a network of their own.
func TestMain(m *testing.M) {
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if filepath.Base(os.Args[0]) == app {
		main()
		return
	}
	os.Exit(dockertest.Main(m, &daemon))
}
