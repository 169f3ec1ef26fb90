package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/ec2"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/pkg/systemd"
)

func startCommand(s command.Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Work for the instance's worker pool",
		Long: `Start registers the instance with worker-manager, takes on the configuration of
the worker pool, and runs tasks until it is told to stop, or the instance goes
away. Then it removes itself and, unless it is configured otherwise, turns the
instance off.

It exits with code 0 once it has stopped, 64 if the configuration is wrong, and 1
if the deployment refuses the worker or the worker does not work.`,
		Example: `  ec2-spot-worker start
  ec2-spot-worker start --config /etc/ec2-spot-worker.yml`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			check := []string{"config", "check"}
			if file != "" {
				check = append(check, "--config", file)
			}
			caught := signals.Catch()
			defer caught.Release()
			h, stop := parts.NewHandover(check...)
			defer stop()
			err := start(cmd.Context(), sources(file), parts.Hooks{Signals: caught, Handover: h}, s)
			if err == nil {
				err = h.Next()
			}
			if _, ok := errors.AsType[setting.Problems](err); ok || err == nil {
				return err
			}
			return &command.Exit{Code: exitFailed, Err: err}
		},
	}
	command.ConfigFlag(cmd, &file)
	return cmd
}

// start has the worker join its pool, and work. Problems of the configuration are
// returned as they are.
func start(ctx context.Context, from setting.Sources, h parts.Hooks, s command.Streams) error {
	l, err := load(from)
	if err != nil {
		return err
	}
	log := command.NewLog(l.Log.Format, l.Log.Level, s.Err)
	defer systemd.KeepAlive(ctx)()
	metadata, shut := ec2.NewMetadata(ec2.Config{})
	defer shut()
	var j parts.Joined
	var leave func()
	err = parts.UnlessStopped(ctx, h.Signals, func(ctx context.Context) (err error) {
		j, leave, err = join(ctx, l, metadata, log)
		return err
	})
	if err != nil {
		return err
	}
	defer leave()
	var a *parts.Assembly
	var shutWorker func()
	err = parts.UnlessStopped(ctx, h.Signals, func(ctx context.Context) (err error) {
		a, shutWorker, err = compose(ctx, from, j, metadata, h, s)
		return err
	})
	if err != nil {
		parts.Report(ctx, j.Identity, err, log)
		return err
	}
	if err := systemd.Notify(ctx, systemd.Ready); err != nil {
		log.WarnContext(ctx, "systemd is not told that the worker is ready", slog.Any("error", err))
	}
	return a.Work(ctx, shutWorker, log)
}

// compose makes the worker that the pool wants.
func compose(
	ctx context.Context, from setting.Sources, j parts.Joined, m *ec2.Metadata, h parts.Hooks, s command.Streams,
) (*parts.Assembly, func(), error) {
	from.Documents = append(from.Documents, j.Pool)
	l, err := load(from)
	if err == nil {
		err = section.CheckPool(l.values, from.Documents, ofTheMachine)
	}
	if err != nil {
		return nil, nil, err
	}
	log := command.NewLog(l.Log.Format, l.Log.Level, s.Err)
	h.Service, h.State = true, l.StateDir()
	return composeWorker(ctx, l.config, j, m, h, log)
}
