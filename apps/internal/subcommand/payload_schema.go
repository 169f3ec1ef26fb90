// Package subcommand has the commands that apps share and that know of workers.
package subcommand

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// PayloadSchema returns the command that prints which payloads a worker takes.
// compose makes the worker that a configuration file describes.
func PayloadSchema(app string, compose func(file string, s command.Streams) (*worker.Worker, error), s command.Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "payload-schema",
		Short: "Print the JSON schema of the payloads that the worker takes",
		Long: `Payload-schema prints the schema that task.payload is checked against. It is made
of what the engine and the plugins define.`,
		Example: "  " + app + " payload-schema --config worker.yml",
		Args:    command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			w, err := compose(file, s)
			if err != nil {
				return err
			}
			return s.Print(fmt.Sprintf("%s\n", w.PayloadSchema()))
		},
	}
	command.ConfigFlag(cmd, &file)
	return cmd
}
