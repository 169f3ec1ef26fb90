package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func configCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("expected a command: see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(configCheckCommand(s), configShowCommand(s), configSchemaCommand(s))
	return cmd
}

func configCheckCommand(s streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether the worker could start with a configuration",
		Long: `Check reads the configuration as "start" does, says all that is wrong with it,
and then exits with code 64. It does not call the deployment.`,
		Example: "  dc-linux-worker config check --config worker.yml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := loadConfig(file, os.Environ(), needStart, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(s.out, "The configuration is fine.")
			return err
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func configShowCommand(s streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration that is in effect",
		Long: `Show prints each setting with the value that is in effect, and where it comes
from: a line of the file, an environment variable, or a default. Secrets are
hidden.`,
		Example: "  TASKCLUSTER_CLIENT_ID=project/worker dc-linux-worker config show --config worker.yml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := loadConfig(file, os.Environ(), "", nil)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(s.out, l.effective())
			return err
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func configSchemaCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of the configuration",
		Example: "  dc-linux-worker config schema >worker.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema, err := settings().JSONSchema("Configuration of dc-linux-worker")
			if err != nil {
				return fmt.Errorf("make schema: %w", err)
			}
			_, err = fmt.Fprintf(s.out, "%s\n", schema)
			return err
		},
	}
}
