package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/adapters/ec2"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/apps/internal/subcommand"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// app is the name of the program.
const app = "ec2-spot-worker"

// exitFailed is the exit code of what does not work.
const exitFailed = 1

// version is set by the linker.
var version string

// thisProgram is this app, in the version that the binary was built from.
func thisProgram() parts.Program {
	return parts.Program{Name: app, Version: command.BuildVersion(version)}
}

func execute(ctx context.Context, args []string, s command.Streams) int {
	return command.Execute(ctx, rootCommand(s), args, s)
}

func rootCommand(s command.Streams) *cobra.Command {
	return command.New(app, "Run Taskcluster tasks on an instance in EC2",
		`ec2-spot-worker runs Taskcluster tasks on an instance in EC2, for the worker pool
that worker-manager started the instance for.`,
		startCommand(s),
		subcommand.Drain(app, stateDir, s),
		disksCommand(s),
		unitsCommand(s),
		subcommand.PayloadSchema(app, payloads, s),
		command.Config(app, settings(), loadValues, s),
		command.Version(app, version, s),
	)
}

// loadValues implements command.Load. Nothing is required: what the file does not
// say is in the user data.
func loadValues(file string, _ bool) (setting.Values, error) {
	l, err := load(sources(file))
	return l.values, err
}

// sources are a configuration file and the environment.
func sources(file string) setting.Sources { return setting.Sources{File: file, Environ: os.Environ()} }

// payloads returns a worker that knows its payloads, as a configuration file says.
func payloads(file string, s command.Streams) (*worker.Worker, error) {
	l, err := load(sources(file))
	if err != nil {
		return nil, err
	}
	w, err := composeIdle(l.config, command.NewLog(l.Log.Format, l.Log.Level, s.Err))
	if err != nil {
		return nil, &command.Exit{Code: exitFailed, Err: err}
	}
	return w, nil
}

// stateDir returns the directory for the worker's state, as a configuration file
// says.
func stateDir(file string) (string, error) {
	l, err := load(sources(file))
	return l.StateDir(), err
}

func disksCommand(s command.Streams) *cobra.Command {
	var cfg ec2.DiskConfig
	cmd := &cobra.Command{
		Use:   "disks",
		Short: "Use the instance's own disks for task data",
		Long: `Disks makes one file system of all instance-store disks that nobody uses, and
mounts it where task data is. It runs as root, before the worker and whatever
else stores something there. Where there are no such disks, or it has run
before, it does nothing.`,
		Example: "  ec2-spot-worker disks --bind /var/lib/docker",
		Args:    command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := load(sources(""))
			if err != nil {
				return err
			}
			if err := ec2.PrepareDisks(cmd.Context(), cfg, command.NewLog(l.Log.Format, l.Log.Level, s.Err)); err != nil {
				return &command.Exit{Code: exitFailed, Err: err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&cfg.Dir, "dir", "/var/lib/"+app, "mount at the directory `DIR`, native.dir say")
	cmd.Flags().StringArrayVar(&cfg.Binds, "bind", nil, "have the directory `DIR` be there too; may be repeated")
	return cmd
}
