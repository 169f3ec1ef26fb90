package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

func payloadSchemaCommand(s command.Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "payload-schema",
		Short: "Print the JSON schema of the payloads that the worker takes",
		Long: `Payload-schema prints the schema that task.payload is checked against. It is made
of what the engine and the plugins define.`,
		Example: "  dc-linux-worker payload-schema --config worker.yml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := loadConfig(file, os.Environ(), "", nil)
			if err != nil {
				return err
			}
			w, err := composeIdle(l.config, command.NewLog(l.Log.Format, l.Log.Level, s.Err))
			if err != nil {
				return &command.Exit{Code: exitFailed, Err: err}
			}
			_, err = fmt.Fprintf(s.Out, "%s\n", w.PayloadSchema())
			return err
		},
	}
	command.ConfigFlag(cmd, &file)
	return cmd
}
