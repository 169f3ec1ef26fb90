package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes. Those of "run" say what became of the task.
const (
	exitCompleted = 0
	exitFailed    = 1
	exitException = 2
	exitUsage     = 64 // as EX_USAGE of sysexits.h
)

// streams are the standard streams of the process.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// exit is an error that ends the process with a code. Any other error is one of
// usage or of configuration.
type exit struct {
	code int
	err  error // nil if there is nothing to say
}

// Error returns what there is to say.
func (e *exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// Unwrap returns the error behind the exit.
func (e *exit) Unwrap() error { return e.err }

// execute runs the command line and returns the exit code. Errors are told on
// the error stream, each of their lines as the program's.
func execute(ctx context.Context, args []string, s streams) int {
	root := rootCommand(s)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitUsage
	if e, ok := errors.AsType[*exit](err); ok {
		code = e.code
	}
	if message := err.Error(); message != "" {
		for line := range strings.SplitSeq(message, "\n") {
			_, _ = fmt.Fprintf(s.err, "%s: %s\n", root.Name(), line)
		}
	}
	return code
}

func rootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "dc-linux-worker",
		Short: "Run Taskcluster tasks on Linux",
		Long: `dc-linux-worker runs Taskcluster tasks on Linux: as a worker of a deployment
(start), from files (run), or on a queue of its own (dev).`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("expected a command: see " + cmd.CommandPath() + " --help")
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		runCommand(s),
		devCommand(s),
		startCommand(s),
		payloadSchemaCommand(s),
		configCommand(s),
		versionCommand(s),
	)
	return root
}

// configFlag adds the flag that names the configuration file.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file`, in YAML")
}
