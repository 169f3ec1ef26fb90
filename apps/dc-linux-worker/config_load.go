package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

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
	values, err := settings().Load(file, environ, need, computedDefaults(), defaults)
	if err != nil {
		return loaded{}, err
	}
	l := loaded{values: values}
	return l, l.unmarshal()
}

// unmarshal fills the configuration with the values. They have been checked, so
// that it only fails if the table and the struct do not fit together.
func (l *loaded) unmarshal() error {
	// Each value is set by its path, since viper takes an empty section of a
	// file for one that takes the place of all defaults and variables below it.
	v := viper.New()
	for _, s := range settings().Settings() {
		value, ok := l.values[s.Path]
		if !ok {
			continue
		}
		decoded, err := s.Decoded(value.Text)
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		v.Set(s.Path, decoded)
	}
	err := v.UnmarshalExact(&l.config, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), decodeBytes)))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return nil
}

// isDefault reports whether nobody has set what is at a path.
func (l *loaded) isDefault(path string) bool { return l.values[path].Origin == setting.OriginDefault }

// decodeBytes decodes sizes.
func decodeBytes(_, to reflect.Type, value any) (any, error) {
	if text, ok := value.(string); ok && to == reflect.TypeFor[setting.Bytes]() {
		return setting.ParseBytes(text)
	}
	return value, nil
}

// computedDefaults are the defaults that depend on the machine, by path.
func computedDefaults() map[string]string {
	defaults := map[string]string{"worker.id": hostID(), "native.dir": "/var/lib/dc-linux-worker", "caches.table": "/var/lib/dc-linux-worker/caches.json", "log.level": "info", "log.format": "json"}
	if os.Geteuid() != 0 {
		if cache, err := os.UserCacheDir(); err == nil {
			defaults["native.dir"] = filepath.Join(cache, "dc-linux-worker")
			defaults["caches.table"] = filepath.Join(cache, "dc-linux-worker", "caches.json")
		}
	}
	if isTerminal(os.Stderr) {
		defaults["log.format"] = "text"
	}
	return defaults
}

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
