package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/setting"
)

// loaded is a configuration and where its values come from.
type loaded struct {
	config
	origins setting.Origins
	merged  *viper.Viper
}

// needStart names what a worker needs for working on a deployment.
const needStart = "start"

// originDefault is the origin of values that nobody has set.
const originDefault = "default"

// overrides are the defaults of settings that a command has in place of the
// general ones, by path.
type overrides map[string]string

// loadConfig reads the configuration from a file, or from none if its name is
// empty, and the environment, which has precedence. What is needed for something
// must be there: needStart or, for nothing in particular, "".
//
// Errors: setting.Problems, with all that is wrong.
func loadConfig(file string, environ []string, need string, defaults overrides) (loaded, error) {
	table := settings()
	var content []byte
	var fromFile setting.Origins
	var problems setting.Problems
	if file != "" {
		var err error
		if content, err = os.ReadFile(file); err != nil {
			return loaded{}, setting.Problems{{Where: file, Message: "cannot read the configuration file: " + reason(err)}}
		}
		if fromFile, problems = table.CheckFile(file, content); fromFile == nil {
			return loaded{}, problems
		}
	}
	fromEnv, more := table.CheckEnv(environ)
	problems = append(problems, more...)
	problems = append(problems, table.Missing(need, problems, fromFile, fromEnv)...)
	if len(problems) > 0 {
		return loaded{}, problems
	}

	l := loaded{origins: setting.Origins{}, merged: viper.New()}
	l.merged.SetConfigType("yaml")
	if err := l.merged.ReadConfig(bytes.NewReader(content)); err != nil {
		return loaded{}, setting.Problems{setting.SyntaxProblem(file, err)}
	}
	variables := map[string]string{}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		variables[name] = value
	}
	computed := computedDefaults()
	for _, s := range table.Settings() {
		for _, value := range []string{s.Default, computed[s.Path], defaults[s.Path]} {
			if value != "" {
				l.merged.SetDefault(s.Path, value)
				l.origins[s.Path] = originDefault
			}
		}
		if origin := fromFile[s.Path]; origin != "" {
			l.origins[s.Path] = origin
		}
		if name := fromEnv[s.Path]; name != "" {
			l.merged.Set(s.Path, variables[name])
			l.origins[s.Path] = name
		}
	}
	if err := l.merged.UnmarshalExact(&l.config, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), decodeBytes))); err != nil {
		return loaded{}, fmt.Errorf("read configuration: %w", err)
	}
	return l, nil
}

// decodeBytes decodes sizes.
func decodeBytes(_, to reflect.Type, value any) (any, error) {
	if text, ok := value.(string); ok && to == reflect.TypeFor[setting.Bytes]() {
		return setting.ParseBytes(text)
	}
	return value, nil
}

// computedDefaults are the defaults that depend on the machine, by path.
func computedDefaults() overrides {
	defaults := overrides{"worker.id": hostID(), "native.dir": "/var/lib/dc-linux-worker", "log.level": "info", "log.format": "json"}
	if os.Geteuid() != 0 {
		if cache, err := os.UserCacheDir(); err == nil {
			defaults["native.dir"] = filepath.Join(cache, "dc-linux-worker")
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

// reason returns why a file could not be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// effective returns the configuration in the form of its file, secrets hidden,
// with the origin of each value.
func (l loaded) effective() string {
	return settings().YAML(func(s *setting.Setting) (text, origin string) {
		return l.merged.GetString(s.Path), l.origins[s.Path]
	})
}
