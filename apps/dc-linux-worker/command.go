package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/apps/internal/subcommand"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// app is the name of the program.
const app = "dc-linux-worker"

// The exit codes besides command.ExitUsage. Those of "run" say what became of
// the task.
const (
	exitCompleted = 0
	exitFailed    = 1
	exitException = 2
)

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
	return command.New(app, "Run Taskcluster tasks on Linux",
		`dc-linux-worker runs Taskcluster tasks on Linux: as a worker of a deployment
(start), from files (run), or on a queue of its own (dev).`,
		runCommand(s),
		devCommand(s),
		startCommand(s),
		subcommand.Drain(app, stateDir, s),
		subcommand.PayloadSchema(app, payloads, s),
		command.Config(app, settings(), loadValues, s),
		command.Version(app, version, s),
	)
}

// loadValues implements command.Load.
func loadValues(file string, complete bool) (setting.Values, error) {
	need := ""
	if complete {
		need = needStart
	}
	l, err := loadConfig(file, os.Environ(), need, nil)
	return l.values, err
}

// payloads returns a worker that knows its payloads, as a configuration file says.
func payloads(file string, s command.Streams) (*worker.Worker, error) {
	l, err := loadConfig(file, os.Environ(), "", nil)
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
	l, err := loadConfig(file, os.Environ(), "", nil)
	return l.StateDir(), err
}
