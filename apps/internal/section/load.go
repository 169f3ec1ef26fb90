package section

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/taskcluster/taskcluster-worker/apps/internal/terminal"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/pkg/systemd"
)

// Fill fills a configuration, which config points to, with the values of a table
// that is made of its type. They have been checked, so that it only fails if
// table and type do not fit together.
func Fill(config any, table *setting.Table, values setting.Values) error {
	// Each value is set by its path, since viper takes an empty section of a
	// file for one that takes the place of all defaults and variables below it.
	v := viper.New()
	for _, s := range table.Settings() {
		value, ok := values[s.Path]
		if !ok {
			continue
		}
		decoded, err := s.Decoded(value.Text)
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		v.Set(s.Path, decoded)
	}
	err := v.UnmarshalExact(config, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), decodeBytes)))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return nil
}

// decodeBytes decodes sizes.
func decodeBytes(_, to reflect.Type, value any) (any, error) {
	if text, ok := value.(string); ok && to == reflect.TypeFor[setting.Bytes]() {
		return setting.ParseBytes(text)
	}
	return value, nil
}

// Defaults returns the defaults of Linux that depend on the machine and on the
// name of the app, by path.
func Defaults(app string) map[string]string {
	dir := filepath.Join("/var/lib", app)
	if os.Geteuid() != 0 {
		if cache, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(cache, app)
		}
	}
	format := "json"
	switch {
	case terminal.Is(os.Stderr):
		format = "text"
	case systemd.JournalListens():
		format = "journal"
	}
	return map[string]string{
		"native.dir":   dir,
		"caches.table": filepath.Join(dir, "caches.json"),
		"log.level":    "info",
		"log.format":   format,
	}
}

// CheckPool refuses values that come from what a pool configures, if they are of
// settings that a worker needs before it can ask its pool, or in such sections.
//
// Errors: setting.Problems.
func CheckPool(values setting.Values, pool []setting.Document, ofTheMachine []string) error {
	var problems setting.Problems
	for _, path := range slices.Sorted(maps.Keys(values)) {
		origin := values[path].Origin
		reserved := slices.ContainsFunc(ofTheMachine, func(s string) bool { return path == s || strings.HasPrefix(path, s+".") })
		if reserved && slices.ContainsFunc(pool, func(d setting.Document) bool { return d.Name == origin }) {
			problems = append(problems, setting.Problem{
				Where: origin, Path: path, Message: "has to be set on the machine, which needs it before it asks its pool",
			})
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}
