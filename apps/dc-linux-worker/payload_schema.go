package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func payloadSchemaCommand(s streams) *cobra.Command {
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
			w, err := composeIdle(l.config, newLog(l.Log, s.err))
			if err != nil {
				return &exit{exitFailed, err}
			}
			_, err = fmt.Fprintf(s.out, "%s\n", w.PayloadSchema())
			return err
		},
	}
	configFlag(cmd, &file)
	return cmd
}
