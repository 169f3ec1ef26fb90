package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// Load reads an app's configuration from a file and the environment. complete
// asks for all that a worker needs to start.
type Load func(file string, complete bool) (setting.Values, error)

// Config returns the commands that check and show the configuration of an app.
func Config(app string, table *setting.Table, load Load, s Streams) *cobra.Command {
	return group("config", "Check and show the configuration",
		configCheck(app, load, s), configShow(app, table, load, s), configSchema(app, table, s))
}

func configCheck(app string, load Load, s Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether the worker could start with a configuration",
		Long: `Check reads the configuration as "start" does, says all that is wrong with it,
and then exits with code 64. It does not call the deployment.`,
		Example: "  " + app + " config check --config worker.yml",
		Args:    NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := load(file, true); err != nil {
				return err
			}
			return s.Print("The configuration is fine.\n")
		},
	}
	ConfigFlag(cmd, &file)
	return cmd
}

func configShow(app string, table *setting.Table, load Load, s Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration that is in effect",
		Long: `Show prints each setting with the value that is in effect, and where it comes
from: a line of the file, an environment variable, or a default. Secrets are
hidden.`,
		Example: "  TASKCLUSTER_CLIENT_ID=project/worker " + app + " config show --config worker.yml",
		Args:    NoArgs,
		RunE: func(*cobra.Command, []string) error {
			values, err := load(file, false)
			if err != nil {
				return err
			}
			return s.Print(table.YAML(values))
		},
	}
	ConfigFlag(cmd, &file)
	return cmd
}

func configSchema(app string, table *setting.Table, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of the configuration",
		Example: "  " + app + " config schema >worker.schema.json",
		Args:    NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema, err := table.JSONSchema("Configuration of " + app)
			if err != nil {
				return fmt.Errorf("make schema: %w", err)
			}
			return s.Print(fmt.Sprintf("%s\n", schema))
		},
	}
}
