package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// assembly is a worker, and its connection to the deployment that it works for.
type assembly struct {
	Worker *worker.Worker
	Client *taskcluster.Client
}

func startCommand(s command.Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Work for a Taskcluster deployment",
		Long: `Start claims tasks from the task queue of a worker pool and runs them, until it is
told to stop. SIGTERM and SIGINT stop running tasks, which are reported as
worker-shutdown; SIGUSR1 lets them finish.

It exits with code 0 once it has stopped, 64 if the configuration is wrong, and 1
if the deployment refuses the worker or the worker does not work.`,
		Example: `  dc-linux-worker start --config /etc/dc-linux-worker.yml
  DC_LINUX_WORKER_WORKER_CAPACITY=8 dc-linux-worker start --config /etc/dc-linux-worker.yml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := loadConfig(file, os.Environ(), needStart, nil)
			if err != nil {
				return err
			}
			if err := start(cmd.Context(), l.config, command.NewLog(l.Log.Format, l.Log.Level, s.Err)); err != nil {
				return &command.Exit{Code: exitFailed, Err: err}
			}
			return nil
		},
	}
	command.ConfigFlag(cmd, &file)
	return cmd
}

func start(ctx context.Context, cfg config, log *slog.Logger) error {
	a, shut, err := composeWorker(ctx, cfg, configuredDeployment(cfg), hooks{State: filepath.Join(cfg.Native.Dir, "state")}, log)
	if err != nil {
		return err
	}
	defer shut()
	if err := verify(ctx, a.Client); err != nil {
		return err
	}
	log.InfoContext(ctx, "worker started", slog.String("rootURL", cfg.RootURL), slog.String("pool", cfg.Worker.Pool),
		slog.String("group", cfg.Worker.Group), slog.String("id", cfg.Worker.ID), slog.Int("capacity", cfg.Worker.Capacity),
		slog.String("version", moduleVersion()))
	if err := a.Worker.Run(ctx); err != nil {
		return err
	}
	log.InfoContext(ctx, "worker stopped")
	return nil
}

// verify returns why the deployment does not let the worker work. It ends with a
// signal, which the worker then finds waiting.
func verify(ctx context.Context, c *taskcluster.Client) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := c.Verify(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return explain(err)
}

// explain says where to look for what keeps the worker from a deployment.
func explain(err error) error {
	if _, ok := errors.AsType[*taskcluster.CredentialsError](err); ok {
		return fmt.Errorf("%w; check credentials in the configuration, or TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN", err)
	}
	if _, ok := errors.AsType[*taskcluster.UnreachableError](err); ok {
		return fmt.Errorf("%w; check rootURL in the configuration, or TASKCLUSTER_ROOT_URL", err)
	}
	return err
}
