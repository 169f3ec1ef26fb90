package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/drainfile"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// drainOptions are the flags of "drain".
type drainOptions struct {
	config  string
	abort   bool
	timeout time.Duration
}

func drainCommand(s command.Streams) *cobra.Command {
	var o drainOptions
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Have the worker on this machine take on no more tasks, and stop",
		Long: `Drain tells the worker that runs on this machine, with the same configuration, to
claim no more tasks, and to stop once those that run are finished. It returns as
soon as the worker has heeded it, and says so.

With --abort, running tasks are stopped at once and reported as worker-shutdown, so
that they run again elsewhere; that may follow a drain without.

It exits with code 0 if the worker drains, 1 if none heeds it, and 64 if the
configuration is wrong.`,
		Example: `  dc-linux-worker drain --config /etc/dc-linux-worker.yml
  dc-linux-worker drain --config /etc/dc-linux-worker.yml --abort`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return drain(cmd.Context(), o, s) },
	}
	command.ConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.abort, "abort", false, "stop running tasks")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long the worker has to heed it")
	return cmd
}

func drain(ctx context.Context, o drainOptions, s command.Streams) error {
	l, err := loadConfig(o.config, os.Environ(), "", nil)
	if err != nil {
		return err
	}
	ctx, stop := heedSignals(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = drainfile.Drain(ctx, l.StateDir(), o.abort)
	switch {
	case errors.Is(err, drainfile.ErrNotTaken):
		err = fmt.Errorf("no worker with the state directory %s has heeded it within %v: none runs, or it has stopped already", l.StateDir(), o.timeout)
		return &command.Exit{Code: exitFailed, Err: err}
	case errors.Is(err, os.ErrNotExist):
		return &command.Exit{Code: exitFailed, Err: fmt.Errorf("no worker has run here: there is no state directory %s", l.StateDir())}
	case err != nil:
		return &command.Exit{Code: exitFailed, Err: err}
	}
	says := "The worker claims no more tasks, and stops once those that run are finished."
	if o.abort {
		says = "The worker claims no more tasks, reports those that run as worker-shutdown, and stops."
	}
	_, err = fmt.Fprintln(s.Out, says)
	return err
}
