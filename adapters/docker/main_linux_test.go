package docker_test

import (
	"os"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// daemon is there for all tests.
var daemon *dockertest.Daemon

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m, &daemon)) }
