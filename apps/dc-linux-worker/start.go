package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

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
	a, shut, err := composeWorker(ctx, cfg, configuredDeployment(cfg), parts.Hooks{State: cfg.StateDir()}, log)
	if err != nil {
		return err
	}
	return explain(a.Work(ctx, shut, log))
}

// configuredDeployment is what the configuration says.
func configuredDeployment(c config) parts.Deployment {
	w := c.Worker
	return parts.Deployment{
		RootURL:     c.RootURL,
		Credentials: task.Credentials(c.Credentials),
		Worker:      identity.Worker{Pool: w.Pool, Group: w.Group, ID: w.ID},
		Machine:     parts.Machine{Location: w.Location, InstanceType: w.InstanceType, PublicIP: w.PublicIP},
	}
}

// interrupts are where notices come from.
func interrupts(s *signals.Source) []interrupt.Source { return []interrupt.Source{s} }

// noHost says that the machine stays when the worker goes.
func noHost() interrupt.Host { return nil }

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
