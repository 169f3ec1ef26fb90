package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

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

// moduleVersion returns the version that the binary was built from.
func moduleVersion() string { return command.BuildVersion(version) }

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
		payloadSchemaCommand(s),
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
