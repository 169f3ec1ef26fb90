package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// embedded is a worker with a queue of its own.
type embedded struct {
	*parts.Assembly
	Queue *devqueue.Server
}

// embeddedDeployment is a queue in this process. It ends with its only worker,
// so that a claim which it grants in the last moment is no loss, and there is no
// network between them that might get better.
func embeddedDeployment(c config, s *devqueue.Server) parts.Deployment {
	d := configuredDeployment(c)
	d.RootURL, d.Credentials = s.RootURL(), s.Credentials()
	d.CancelGrace, d.RetryFor = time.Millisecond, time.Second
	return d
}

// devOptions are the flags of "dev".
type devOptions struct {
	config string
	listen string
	data   string // directory; empty for a temporary one
}

func devCommand(s command.Streams) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a queue and a worker on it, for development",
		Long: `Dev serves the HTTP APIs of Taskcluster's services on loopback, with a worker on
its task queue, until it is interrupted. It prints what the taskcluster CLI needs
to create tasks there.`,
		Example: `  dc-linux-worker dev
  dc-linux-worker dev --listen 127.0.0.1:8080 --data ~/.cache/taskcluster-dev`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := loadConfig(o.config, os.Environ(), "", map[string]string{"worker.group": localGroup, "worker.pool": localPool})
			if err != nil {
				return err
			}
			if err := dev(cmd.Context(), o, l, s); err != nil {
				return &command.Exit{Code: exitFailed, Err: err}
			}
			return nil
		},
	}
	command.ConfigFlag(cmd, &o.config)
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:0", "TCP `address` to serve at; port 0 is any that is free")
	cmd.Flags().StringVar(&o.data, "data", "", "keep tasks and artifacts in the directory `DIR`, for the next time")
	return cmd
}

func dev(ctx context.Context, o devOptions, l loaded, s command.Streams) (err error) {
	caught := signals.Catch()
	defer caught.Release()
	early, stop := caught.Context(ctx, 0)
	defer stop()
	dir, leave, err := l.settleIn(o.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	hooks := parts.Hooks{Signals: caught, Temporary: l.isDefault("caches.table")}
	if o.data != "" { // another process comes for it
		hooks = parts.Hooks{Signals: caught, State: l.StateDir()}
	}
	e, shut, err := composeEmbedded(early, l.config, devqueue.Config{Dir: filepath.Join(dir, "queue"), Listen: o.listen}, hooks,
		command.NewLog(l.Log.Format, l.Log.Level, s.Err))
	if err == nil {
		defer shut()
	}
	if early.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(s.Out, usage(e.Queue, l.Worker.Pool)); err != nil {
		return err
	}
	return e.Worker.Run(ctx)
}

// usage says how to create tasks, in a form that a shell can read.
func usage(q *devqueue.Server, pool string) string {
	return fmt.Sprintf(`# Taskcluster is at %[1]s, with a worker on the task queue %[2]s.
# To use the taskcluster CLI, set:
export TASKCLUSTER_ROOT_URL=%[1]s
export TASKCLUSTER_CLIENT_ID=%[3]s
export TASKCLUSTER_ACCESS_TOKEN=%[4]s
# To create a task, and to see its log:
#   id=$(taskcluster slugid generate --nice)
#   taskcluster api queue createTask $id <<EOF
#   {
#     "taskQueueId": "%[2]s",
#     "created": "$(taskcluster from-now '0 seconds')",
#     "deadline": "$(taskcluster from-now '1 hour')",
#     "metadata": {"name": "hello", "description": "", "owner": "me@example.com", "source": "https://example.com"},
#     "payload": {"command": [["/bin/echo", "hello"]], "maxRunTime": 60}
#   }
#   EOF
#   until taskcluster task log $id 2>/dev/null; do sleep 1; done # once it is there
# A task that is in a file runs without any of this: dc-linux-worker run FILE.
# An interrupt ends it all.
`, q.RootURL(), pool, q.Credentials().ClientID, q.Credentials().AccessToken)
}
