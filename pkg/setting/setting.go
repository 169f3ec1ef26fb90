// Package setting derives all there is to know of an app's configuration from
// one struct: which settings there are, what is wrong with the values that a
// file or an environment variable gives them, the JSON schema of the file, and
// the table for the manual.
//
// Each field of the struct is a setting or a struct of settings; a setting may
// be a list of texts, or of structs. Its tags:
//
//	mapstructure  the key, such as "capacity", or ",squash" for a struct whose
//	              settings are among those of the struct that it is in
//	doc           what the setting means, in Markdown
//	default       the value if nothing sets it, as text
//	computed      in place of default: how the value is found at run time
//	env           the environment variable, if it is not named after the path
//	needs         what the setting is required for, such as "deployment", or
//	              "entry" in the struct of a list
//	when          the values of another setting with which it is needed, such as
//	              "colour=red,green"
//	min, max      the least and the greatest value of a number or a duration
//	oneof         the values that are allowed, separated by spaces
//	pattern       a regular expression that text must match
//	example       text that matches the pattern, for messages
//	secret        "true" if the value must not be shown
package setting

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Setting is one value that can be configured.
type Setting struct {
	Path     string // such as "worker.capacity"
	Env      string // environment variable
	Doc      string
	Default  string // as text; empty for none
	Computed string // how the default is found, if it is not Default
	Needs    string // what the setting is required for; empty if it is optional
	Secret   bool

	when     condition
	kind     kind
	min, max string
	oneOf    []string
	pattern  *regexp.Regexp
	example  string
	entries  *Table // of a list of structs
}

// condition is about the value of another setting. The zero condition holds.
type condition struct {
	path   string
	values []string
}

func conditionOf(tag string) condition {
	path, values, ok := strings.Cut(tag, "=")
	if !ok {
		return condition{}
	}
	return condition{path, strings.Split(values, ",")}
}

// String returns the condition as the end of a sentence.
func (c condition) String() string {
	if c.path == "" {
		return ""
	}
	return " if " + c.path + " is " + orList(c.values)
}

// Table is all settings of an app, in the order of its struct. It does not
// change once it is made.
type Table struct {
	settings []*Setting
	prefix   string
}

// Settings returns the settings in their order.
func (t *Table) Settings() []*Setting { return slices.Clone(t.settings) }

// Of returns the settings of a struct type. Variables of the environment are
// named after the path of their setting, in upper case, with the prefix, such
// as "APP_WORKER_CAPACITY". It panics if the tags make no sense, which is a bug
// that every test finds.
func Of[T any](prefix string) *Table {
	t := &Table{prefix: prefix}
	t.add("", reflect.TypeFor[T]())
	for _, s := range t.settings {
		if s.when.path != "" && t.find(s.when.path) == nil {
			panic(fmt.Sprintf("setting: %s depends on %s, which is none", s.Path, s.when.path))
		}
		if s.Default != "" {
			if err := s.Check(s.Default); err != nil {
				panic(fmt.Sprintf("setting: default of %s: %v", s.Path, err))
			}
		}
	}
	return t
}

func (t *Table) add(path string, section reflect.Type) {
	for f := range section.Fields() {
		if f.Tag.Get("mapstructure") == ",squash" {
			t.add(path, f.Type)
			continue
		}
		at := strings.TrimPrefix(path+"."+f.Tag.Get("mapstructure"), ".")
		k, ok := kindOf(f.Type)
		var entries *Table
		if !ok {
			k, entries, ok = listOf(f.Type)
		}
		if !ok {
			t.add(at, f.Type)
			continue
		}
		s := &Setting{
			Path:     at,
			Env:      f.Tag.Get("env"),
			Doc:      f.Tag.Get("doc"),
			Default:  f.Tag.Get("default"),
			Computed: f.Tag.Get("computed"),
			Needs:    f.Tag.Get("needs"),
			Secret:   f.Tag.Get("secret") == "true",
			when:     conditionOf(f.Tag.Get("when")),
			kind:     k,
			min:      f.Tag.Get("min"),
			max:      f.Tag.Get("max"),
			oneOf:    strings.Fields(f.Tag.Get("oneof")),
			example:  f.Tag.Get("example"),
			entries:  entries,
		}
		if s.Env == "" && t.prefix != "" {
			s.Env = t.prefix + strings.ToUpper(strings.ReplaceAll(at, ".", "_"))
		}
		if p := f.Tag.Get("pattern"); p != "" {
			s.pattern = regexp.MustCompile(p)
		}
		t.settings = append(t.settings, s)
	}
}

// find returns the setting of that path, or nil.
func (t *Table) find(path string) *Setting {
	i := slices.IndexFunc(t.settings, func(s *Setting) bool { return s.Path == path })
	if i < 0 {
		return nil
	}
	return t.settings[i]
}

// keys returns the keys in a section, in order; "" is the whole file.
func (t *Table) keys(section string) []string {
	var keys []string
	for _, s := range t.settings {
		rest, ok := within(s.Path, section)
		key, _, _ := strings.Cut(rest, ".")
		if ok && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// isSection reports whether there are settings below path.
func (t *Table) isSection(path string) bool {
	return slices.ContainsFunc(t.settings, func(s *Setting) bool {
		_, ok := within(s.Path, path)
		return ok
	})
}

// within returns what follows section in path.
func within(path, section string) (rest string, ok bool) {
	if section == "" {
		return path, true
	}
	return strings.CutPrefix(path, section+".")
}

// Bytes is a size, written such as "4GiB".
type Bytes int64

// kind is the type of a setting.
type kind int

const (
	text kind = iota
	boolean
	integer
	number
	duration
	size
	texts // a list of text
	list  // a list of structs
)

func (k kind) isList() bool { return k == texts || k == list }

func kindOf(t reflect.Type) (k kind, ok bool) {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return duration, true
	case t == reflect.TypeFor[Bytes]():
		return size, true
	}
	switch t.Kind() {
	case reflect.String:
		return text, true
	case reflect.Bool:
		return boolean, true
	case reflect.Int:
		return integer, true
	case reflect.Float64:
		return number, true
	default:
		return 0, false
	}
}
