package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// TestNothingIsLeftOfKilledRunInContainers has a Docker daemon of its own, on
// which there is nothing else.
func TestNothingIsLeftOfKilledRunInContainers(t *testing.T) {
	withDocker(t, testNothingIsLeftInContainers)
}

func testNothingIsLeftInContainers(t *testing.T) {
	t.Helper()
	before := onDaemon(t, "")
	temp := ownTemp(t)
	file := taskIn(t, `
scopes: [docker-worker:cache:mine]
payload:
  image: `+dockertest.Image+`
  maxRunTime: 60
  cache: {mine: /cache}
  command: [sh, -c, 'setsid sleep 3608.5 & exec sleep 3608.5']
`)
	p := startProgramIn(t, []string{
		temp, "DC_LINUX_WORKER_ENGINE=docker", "DC_LINUX_WORKER_DOCKER_HOST=" + daemon.Host(), "DC_LINUX_WORKER_DOCKER_PULL=missing",
	}, "run", file)
	eventually(t, "both processes of the task", func() bool { return len(processes(t, "3608.5")) == 2 })
	instance := "dc-linux-worker in " + estate(t, temp)
	during := onDaemon(t, instance)
	p.kill(t)
	expectNoProcess(t, "3608.5")
	noTemporaryFiles(t, temp)
	if after := onDaemon(t, instance); !slices.Equal(after, before) {
		t.Errorf("the daemon and the host have %q, and had %q; during the task they had %q", after, before, during)
	}
	for _, kind := range []string{"container", "network", "volume", "firewall", "group"} {
		if !slices.ContainsFunc(during, func(what string) bool { return what[:len(kind)] == kind }) {
			t.Errorf("there was no %s during the task, but %q", kind, during)
		}
	}
}

// onDaemon returns what there is on the daemon, and what the engine of an instance
// has beside it.
func onDaemon(t *testing.T, instance string) (all []string) {
	t.Helper()
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	containers, err1 := c.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	networks, err2 := c.NetworkList(t.Context(), client.NetworkListOptions{})
	volumes, err3 := c.VolumeList(t.Context(), client.VolumeListOptions{})
	firewall, err4 := exec.CommandContext(t.Context(), "nft", "list", "tables", "inet").Output()
	sum := sha256.Sum256([]byte(instance))
	groups, err5 := filepath.Glob("/sys/fs/cgroup/*/taskcluster-worker-" + hex.EncodeToString(sum[:8]))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	for _, x := range containers.Items {
		all = append(all, "container "+x.ID)
	}
	for _, x := range networks.Items {
		all = append(all, "network "+x.ID)
	}
	for _, x := range volumes.Items {
		all = append(all, "volume "+x.Name)
	}
	if len(firewall) > 0 {
		all = append(all, "firewall "+string(firewall))
	}
	for _, g := range groups {
		all = append(all, "group "+g)
	}
	slices.Sort(all)
	return all
}
