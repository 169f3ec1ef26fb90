package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version string

// moduleVersion returns the version that the binary was built from.
func moduleVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(version, b.Main.Version, "unknown")
	}
	return cmp.Or(version, "unknown")
}

// revision returns the revision in version control that the binary was built
// from, or "" if it is not known.
func revision() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var id, modified string
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			id = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = " (modified)"
			}
		}
	}
	return id + modified
}

func versionCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.out, "dc-linux-worker %s\nrevision %s\n%s %s/%s\n",
				moduleVersion(), cmp.Or(revision(), "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
