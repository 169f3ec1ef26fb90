package main

import (
	"os"
	"regexp"
	"slices"
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
	return loadFrom(setting.Sources{File: file, Environ: environ}, need, defaults)
}

// loadFrom reads the configuration from any sources, as loadConfig does.
func loadFrom(from setting.Sources, need string, defaults map[string]string) (loaded, error) {
	table := settings()
	values, err := table.LoadFrom(from, need, section.Defaults(app), map[string]string{"worker.id": hostID()}, defaults)
	if err != nil {
		return loaded{}, err
	}
	l := loaded{values: values}
	return l, section.Fill(&l.config, table, values)
}

// loadPool reads the configuration again, with what the pool configures.
func loadPool(from setting.Sources, pool []setting.Document) (loaded, error) {
	from.Documents = slices.Concat(from.Documents, pool)
	l, err := loadFrom(from, "", nil)
	if err != nil {
		return l, err
	}
	if err := section.CheckPool(l.values, pool, ofTheMachine); err != nil {
		return loaded{}, err
	}
	return l, nil
}

// ofTheMachine are the settings that a worker needs before it knows what its
// pool configures, and sections of such.
var ofTheMachine = []string{"rootURL", "credentials", "provider", "worker.pool", "worker.group", "worker.id", "state", "native.dir"}

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
