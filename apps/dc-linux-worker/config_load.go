package main

import (
	"os"
	"regexp"
	"strings"

	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// loaded is a configuration and where its values come from.
type loaded struct {
	config
	values setting.Values
}

// needStart names what a worker needs for working on a deployment.
const needStart = "start"

// loadConfig reads the configuration from a file, or from none if its name is
// empty, and the environment, which has precedence. What is needed for something
// must be there: needStart or, for nothing in particular, "". Defaults are those
// that a command has in place of the general ones, by path.
//
// Errors: setting.Problems, with all that is wrong.
func loadConfig(file string, environ []string, need string, defaults map[string]string) (loaded, error) {
	table := settings()
	values, err := table.Load(file, environ, need, section.Defaults(app), map[string]string{"worker.id": hostID()}, defaults)
	if err != nil {
		return loaded{}, err
	}
	l := loaded{values: values}
	return l, section.Fill(&l.config, table, values)
}

// isDefault reports whether nobody has set what is at a path.
func (l *loaded) isDefault(path string) bool { return l.values[path].Origin == setting.OriginDefault }

// hostID returns the host's name, as far as it can be the id of a worker.
func hostID() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	name, _, _ = strings.Cut(name, ".")
	id := regexp.MustCompile(`[^a-zA-Z0-9_-]+`).ReplaceAllString(name, "-")
	if id == "" {
		return "localhost"
	}
	return id[:min(len(id), 38)]
}
