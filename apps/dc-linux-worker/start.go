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
	"github.com/taskcluster/taskcluster-worker/adapters/workerrunner"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// startOptions are the flags of "start".
type startOptions struct {
	config string
	runner bool // start-worker has started the worker
	hooks  parts.Hooks
}

func startCommand(s command.Streams) *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Work for a Taskcluster deployment",
		Long: `Start claims tasks from the task queue of a worker pool and runs them, until it is
told to stop. SIGTERM and SIGINT stop running tasks, which are reported as
worker-shutdown; SIGUSR1 lets them finish, as "drain" does.

Tasks outlive the worker: the next one with the same configuration goes on with
them, however this one has ended. After SIGHUP, the program that is installed by
then takes the place of this one, with the configuration that is there by then,
unless that is wrong. With --take-over, a worker that is running makes way.

With --with-worker-runner, the configuration is one that Taskcluster's
start-worker wrote for generic-worker, and start-worker is spoken with on standard
input and output.

It exits with code 0 once it has stopped, 64 if the configuration is wrong, and 1
if the deployment refuses the worker or the worker does not work.`,
		Example: `  dc-linux-worker start --config /etc/dc-linux-worker.yml
  DC_LINUX_WORKER_WORKER_CAPACITY=8 dc-linux-worker start --config /etc/dc-linux-worker.yml
  dc-linux-worker start --config /etc/dc-linux-worker.yml --take-over`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return start(cmd.Context(), o, s) },
	}
	command.ConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.hooks.TakeOver, "take-over", false, "have a worker that uses the same state make way, and go on with its tasks")
	cmd.Flags().BoolVar(&o.runner, "with-worker-runner", false, "be a worker that start-worker starts")
	return cmd
}

// start starts a worker and has it work. Problems of the configuration are
// returned as they are.
func start(ctx context.Context, o startOptions, s command.Streams) error {
	caught := signals.Catch()
	defer caught.Release()
	o.hooks.Signals = caught
	from := setting.Sources{File: o.config, Environ: os.Environ()}
	if o.runner {
		var err error
		if from, err = runnerSources(o.config, from.Environ); err != nil {
			return err
		}
	}
	l, err := loadFrom(from, needStart, nil)
	if err != nil {
		return err
	}
	if !o.runner {
		h, stop := parts.NewHandover(checkArguments(o.config)...)
		defer stop()
		o.hooks.Handover = h
	}
	err = joinAndWork(ctx, from, l, o, s)
	if err == nil && o.hooks.Handover != nil {
		err = o.hooks.Handover.Next()
	}
	if _, ok := errors.AsType[setting.Problems](err); ok || err == nil {
		return err
	}
	return &command.Exit{Code: exitFailed, Err: explain(err, o.runner || l.Provider.Type != providerNone)}
}

// checkArguments are those with which the next program checks its configuration.
func checkArguments(file string) []string {
	args := []string{"config", "check"}
	if file != "" {
		args = append(args, "--config", file)
	}
	return args
}

// joinAndWork has a worker become one of its pool, and work.
func joinAndWork(ctx context.Context, from setting.Sources, l loaded, o startOptions, s command.Streams) error {
	log := command.NewLog(l.Log.Format, l.Log.Level, s.Err)
	j, leave, err := joinAs(ctx, l, o, s, log)
	if err != nil {
		return err
	}
	defer leave()
	l, err = configuredByPool(from, l, j)
	var a *parts.Assembly
	shut := func() {}
	if err == nil {
		log = command.NewLog(l.Log.Format, l.Log.Level, s.Err)
		o.hooks.Service, o.hooks.State = true, l.StateDir()
		err = parts.UnlessStopped(ctx, o.hooks.Signals, func(ctx context.Context) (err error) {
			a, shut, err = composeWorker(ctx, l.config, l.deployment(j.Deployment), j.membership, o.hooks, log)
			return err
		})
	}
	if err != nil {
		if j.Identity != nil {
			parts.Report(ctx, j.Identity, err, log)
		}
		return err
	}
	return a.Work(ctx, shut, log)
}

// joinAs has a worker become one of its pool, unless it is told to stop before
// that.
func joinAs(ctx context.Context, l loaded, o startOptions, s command.Streams, log *slog.Logger) (joined, func(), error) {
	if o.runner {
		in, err := workerrunner.Stdin()
		if err != nil {
			return joined{}, nil, err
		}
		return joinRunner(l, in, s.Out, log)
	}
	var j joined
	var leave func()
	err := parts.UnlessStopped(ctx, o.hooks.Signals, func(ctx context.Context) (err error) {
		j, leave, err = join(ctx, l, log)
		return err
	})
	return j, leave, err
}

// configuredByPool returns the configuration with what the pool says of it.
func configuredByPool(from setting.Sources, l loaded, j joined) (loaded, error) {
	if len(j.Pool) == 0 {
		return l, nil
	}
	return loadPool(from, j.Pool)
}

// explain says where to look for what keeps the worker from a deployment, if it
// was not registered by others or itself, but works as it is configured.
func explain(err error, registered bool) error {
	if registered {
		return err
	}
	if _, ok := errors.AsType[*taskcluster.CredentialsError](err); ok {
		return fmt.Errorf("%w; check credentials in the configuration, or TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN", err)
	}
	if _, ok := errors.AsType[*taskcluster.UnreachableError](err); ok {
		return fmt.Errorf("%w; check rootURL in the configuration, or TASKCLUSTER_ROOT_URL", err)
	}
	return err
}
