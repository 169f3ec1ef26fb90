package docker

import (
	"context"
	"fmt"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// storage returns what limits a container's file system, nil for no limit.
func (l Limits) storage() map[string]string {
	if l.DiskBytes == 0 {
		return nil
	}
	return map[string]string{"size": strconv.FormatInt(l.DiskBytes, 10)}
}

// checkLimits returns an error if the daemon cannot limit what it is to limit: it
// would say so of each task, as though that were to blame.
func (e *Engine) checkLimits(ctx context.Context) error {
	if e.config.Limits.DiskBytes == 0 {
		return nil
	}
	image, err := e.restImage(ctx)
	if err != nil {
		return err
	}
	created, err := e.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Entrypoint: []string{firstProgram}, Labels: e.labels()},
		HostConfig: &container.HostConfig{StorageOpt: e.config.Limits.storage()},
	})
	if err != nil {
		return fmt.Errorf("limits.disk cannot be had of the daemon: %w", err)
	}
	return e.removeContainer(ctx, created.ID)
}
