package docker_test

import (
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
)

func TestDataRootIsTheDaemons(t *testing.T) {
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	info, err := c.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := open(t, docker.Config{}).DataRoot(), info.Info.DockerRootDir; got != want || want == "" {
		t.Errorf("data root is %q, want %q", got, want)
	}
}
