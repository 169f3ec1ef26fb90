package command

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// BuildVersion returns the version that the binary was built from: linked, which
// the linker may have set, or that of the module.
func BuildVersion(linked string) string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(linked, b.Main.Version, "unknown")
	}
	return cmp.Or(linked, "unknown")
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

// Version returns the command that prints the version of an app.
func Version(app, linked string, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return s.Print(fmt.Sprintf("%s %s\nrevision %s\n%s %s/%s\n",
				app, BuildVersion(linked), cmp.Or(revision(), "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}
