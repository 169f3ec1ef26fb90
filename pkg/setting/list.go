package setting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// needEntry is what the keys are required for without which an entry of a list
// makes no sense.
const needEntry = "entry"

// listOf returns the kind of a setting that is a list, and the settings of its
// entries if those are structs.
func listOf(t reflect.Type) (k kind, entries *Table, ok bool) {
	if t.Kind() != reflect.Slice {
		return 0, nil, false
	}
	switch t.Elem().Kind() {
	case reflect.String:
		return texts, nil, true
	case reflect.Struct:
		entries = new(Table)
		entries.add("", t.Elem())
		return list, entries, true
	default:
		return 0, nil, false
	}
}

// list takes the value of a setting that is a list. Its text is JSON: texts, or
// objects of texts.
func (c *fileReader) list(s *Setting, n *yaml.Node) {
	line := n.Line
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		c.problem(line, s.Path, "expected %s, got %s", s.Expected(), describe(n))
		return
	}
	before := len(c.problems)
	entries := make([]any, 0, len(n.Content))
	for i, entry := range n.Content {
		at := fmt.Sprintf("%s[%d]", s.Path, i)
		if s.kind == texts {
			entries = append(entries, c.text(s, at, entry))
		} else {
			entries = append(entries, c.entry(s, at, entry))
		}
	}
	if len(c.problems) > before {
		return
	}
	text, err := json.Marshal(entries)
	if err != nil {
		c.problem(line, s.Path, "%v", err) // texts can always be encoded
		return
	}
	c.values[s.Path] = Value{string(text), c.at(line)}
}

// text takes one text of a list.
func (c *fileReader) text(s *Setting, at string, n *yaml.Node) string {
	line := n.Line
	n = resolve(n)
	one := *s
	one.kind = text
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		c.problem(line, at, "expected %s, got %s", one.Expected(), describe(n))
	} else if err := one.Check(n.Value); err != nil {
		c.problem(line, at, "%v", err)
	}
	return n.Value
}

// entry takes one entry of a list.
func (c *fileReader) entry(s *Setting, at string, n *yaml.Node) map[string]string {
	inner := &fileReader{table: s.entries, name: c.name, unlined: c.unlined, values: Values{}}
	inner.section("", n)
	inner.problems = append(inner.problems, s.entries.Missing(needEntry, inner.problems, inner.values)...)
	for _, p := range inner.problems {
		if p.Where == "" {
			p.Where, p.Message = c.at(n.Line), "is missing"
		}
		path := at
		if p.Path != "" {
			path += "." + p.Path
		}
		c.problems = append(c.problems, Problem{p.Where, path, p.Message})
	}
	texts := map[string]string{}
	for path, v := range inner.values {
		texts[path] = v.Text
	}
	return texts
}

// readList reads a list that is written as YAML, or as JSON, in one text.
func (s *Setting) readList(where, value string) (Value, Problems) {
	c := &fileReader{name: where, values: Values{}}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader([]byte(value))).Decode(&doc); err != nil || len(doc.Content) == 0 {
		return Value{}, Problems{{where, s.Path, "expected " + s.Expected() + ", in JSON"}}
	}
	c.list(s, doc.Content[0])
	for i := range c.problems {
		c.problems[i].Where = where
	}
	return Value{c.values[s.Path].Text, where}, c.problems
}

// Decoded returns the value of the setting in the form in which the struct's
// field can be set from it: text or, for lists, texts or objects of texts.
func (s *Setting) Decoded(value string) (any, error) {
	if !s.kind.isList() {
		return value, nil
	}
	var entries []any
	if err := json.Unmarshal([]byte(value), &entries); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	return entries, nil
}

// shown returns the value of a list as YAML in one line, without secrets.
func (s *Setting) shown(value string) string {
	if s.kind == texts {
		return value
	}
	var entries []map[string]string
	if err := json.Unmarshal([]byte(value), &entries); err != nil {
		return "(unreadable)" // it was written by list
	}
	for _, e := range entries {
		for _, key := range slices.Collect(maps.Keys(e)) {
			if s.entries.find(key).Secret {
				e[key] = "(hidden)"
			}
		}
	}
	text, err := json.Marshal(entries)
	if err != nil {
		return "(unreadable)" // texts can always be encoded
	}
	return string(text)
}
