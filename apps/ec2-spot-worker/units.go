package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// units are the units of systemd that belong to this version of the program.
//
//go:embed packaging/*.service
var units embed.FS

func unitsCommand(s command.Streams) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "units",
		Short: "Write the units that have systemd run the worker",
		Long: `Units writes the units of systemd that start the worker with the instance, and
prepare the instance's disks before. They expect the program to be
/usr/local/bin/ec2-spot-worker, and its configuration /etc/ec2-spot-worker.yml.`,
		Example: "  ec2-spot-worker units --dir /etc/systemd/system",
		Args:    command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := writeUnits(dir, s); err != nil {
				return &command.Exit{Code: exitFailed, Err: err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "/etc/systemd/system", "write to the directory `DIR`")
	return cmd
}

// writeUnits writes the units, and says which.
func writeUnits(dir string, s command.Streams) error {
	files, err := fs.Glob(units, "packaging/*")
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := units.ReadFile(file)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // G306: everybody may read it
			return fmt.Errorf("write unit: %w", err)
		}
		if _, err := fmt.Fprintln(s.Out, path); err != nil {
			return err
		}
	}
	return nil
}
