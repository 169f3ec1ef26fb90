// Package command is what the command lines of all apps have in common: exit
// codes, errors as one line for each that is wrong, and the commands about the
// configuration and the version.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// exitFailed is the exit code of a command that fails for another reason than
// how it is called.
const exitFailed = 1

// ExitUsage is the exit code for bad usage or configuration: EX_USAGE of
// sysexits.h.
const ExitUsage = 64

// Streams are the standard streams of the process.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Exit is an error that ends the process with a code. Any other error is one of
// usage or of configuration.
type Exit struct { //nolint:errname // an exit need not be an error to whoever asks for it
	Code int
	Err  error // nil if there is nothing to say
}

// Error returns what there is to say.
func (e *Exit) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the error behind the exit.
func (e *Exit) Unwrap() error { return e.Err }

// New returns the root of a command line, which does nothing by itself.
func New(name, short, long string, commands ...*cobra.Command) *cobra.Command {
	root := group(name, short, commands...)
	root.Long = long
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
	})
	return root
}

// group returns a command that only holds others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  known,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("expected a command: see " + cmd.CommandPath() + " --help")
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

// known refuses what is no command of a group, and says what may be meant.
func known(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2 // letters that may be wrong
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q: %s", args[0], cmd.CommandPath(), hint)
}

// NoArgs refuses arguments of a command that takes flags alone.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected argument %q: see %s --help", args[0], cmd.CommandPath())
}

// Print writes what a command is there to print. That this fails is no fault of
// the command line.
func (s Streams) Print(text string) error {
	if _, err := io.WriteString(s.Out, text); err != nil {
		return &Exit{Code: exitFailed, Err: err}
	}
	return nil
}

// Execute runs a command line and returns the exit code. Errors are told on the
// error stream, each of their lines as the program's.
func Execute(ctx context.Context, root *cobra.Command, args []string, s Streams) int {
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := ExitUsage
	if e, ok := errors.AsType[*Exit](err); ok {
		code = e.Code
	}
	if message := err.Error(); message != "" {
		for line := range strings.SplitSeq(message, "\n") {
			_, _ = fmt.Fprintf(s.Err, "%s: %s\n", root.Name(), line)
		}
	}
	return code
}

// ConfigFlag adds the flag that names the configuration file.
func ConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file`, in YAML")
}
