package subcommand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/drainfile"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// exitFailed is the exit code of a command that fails for another reason than
// how it is called.
const exitFailed = 1

// drainOptions are the flags of "drain".
type drainOptions struct {
	abort   bool
	timeout time.Duration
}

// Drain returns the command that drains the worker on this machine. stateDir
// returns the directory for the state of a worker with a configuration file.
func Drain(app string, stateDir func(file string) (string, error), s command.Streams) *cobra.Command {
	var file string
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
		Example: "  " + app + " drain --config /etc/" + app + ".yml\n  " + app + " drain --config /etc/" + app + ".yml --abort",
		Args:    command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := stateDir(file)
			if err != nil {
				return err
			}
			return drain(cmd.Context(), dir, o, s)
		},
	}
	command.ConfigFlag(cmd, &file)
	cmd.Flags().BoolVar(&o.abort, "abort", false, "stop running tasks")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long the worker has to heed it")
	return cmd
}

func drain(ctx context.Context, dir string, o drainOptions, s command.Streams) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err := drainfile.Drain(ctx, dir, o.abort)
	switch {
	case errors.Is(err, drainfile.ErrNotTaken):
		err = fmt.Errorf("no worker with the state directory %s has heeded it within %v: none runs, or it has stopped already", dir, o.timeout)
		return &command.Exit{Code: exitFailed, Err: err}
	case errors.Is(err, os.ErrNotExist):
		return &command.Exit{Code: exitFailed, Err: fmt.Errorf("no worker has run here: there is no state directory %s", dir)}
	case err != nil:
		return &command.Exit{Code: exitFailed, Err: err}
	}
	says := "The worker claims no more tasks, and stops once those that run are finished."
	if o.abort {
		says = "The worker claims no more tasks, reports those that run as worker-shutdown, and stops."
	}
	return s.Print(says + "\n")
}
