package dockertest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Sequence runs a command in a container with the least that the API takes:
// create, start, wait and remove. It is what an engine is measured against.
func (d *Daemon) Sequence(ctx context.Context, c *client.Client, command ...string) error {
	created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: Image, Cmd: command}})
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	wait := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case r := <-wait.Result:
		if r.StatusCode != 0 {
			err = fmt.Errorf("the command exits with %d", r.StatusCode)
		}
	case err = <-wait.Error:
	}
	_, removeErr := c.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{})
	return errors.Join(err, removeErr)
}

// Run runs a command as docker run --rm does.
func (d *Daemon) Run(ctx context.Context, command ...string) error {
	args := append([]string{"--host", d.Host(), "run", "--rm", Image}, command...)
	if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker run: %w: %s", err, out)
	}
	return nil
}
