package setting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Value is what a setting is set to, and where.
type Value struct {
	Text   string
	Origin string // such as "worker.yml:3" or a variable's name
}

// Values are the values of settings, by path.
type Values map[string]Value

// ReadFile reads a configuration file in YAML. The values are those that are
// fine, and nil if the file is not YAML.
func (t *Table) ReadFile(name string, content []byte) (Values, Problems) {
	return t.read(name, content, false)
}

// ReadDocument reads a document. The values are those that are fine.
func (t *Table) ReadDocument(d Document) (Values, Problems) {
	// JSON is YAML. Numbers that are told as text, as by json.Number, are
	// numbers in it.
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d.Content); err != nil {
		return nil, Problems{{Where: d.Name, Message: "is not JSON: " + err.Error()}}
	}
	return t.read(d.Name, content.Bytes(), true)
}

// read reads YAML. Lines may mean nothing to a reader.
func (t *Table) read(name string, content []byte, unlined bool) (Values, Problems) {
	c := &fileReader{table: t, name: name, unlined: unlined, values: Values{}}
	d := yaml.NewDecoder(bytes.NewReader(content))
	var doc yaml.Node
	err := d.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF): // there is nothing in it
	case err != nil:
		return nil, Problems{syntaxProblem(name, err)}
	default:
		c.section("", doc.Content[0])
		var more yaml.Node
		if err := d.Decode(&more); err == nil {
			c.problem(more.Line, "", "there is a second document: one is enough")
		} else if !errors.Is(err, io.EOF) {
			return nil, Problems{syntaxProblem(name, err)}
		}
	}
	return c.values, c.problems
}

type fileReader struct {
	table    *Table
	name     string
	unlined  bool // whether lines mean nothing to a reader
	values   Values
	problems Problems
}

func (c *fileReader) at(line int) string {
	if c.unlined {
		return c.name
	}
	return fmt.Sprintf("%s:%d", c.name, line)
}

func (c *fileReader) problem(line int, path, format string, args ...any) {
	c.problems = append(c.problems, Problem{c.at(line), path, fmt.Sprintf(format, args...)})
}

// syntaxProblem returns the problem that an error of the YAML parser is, with
// its line as part of where it is.
func syntaxProblem(name string, err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	where := name
	var line int
	if _, err := fmt.Sscanf(message, "line %d:", &line); err == nil {
		where = fmt.Sprintf("%s:%d", name, line)
		_, message, _ = strings.Cut(message, ": ")
	}
	return Problem{Where: where, Message: "is not valid YAML: " + message}
}

// section checks the keys and values at a path.
func (c *fileReader) section(path string, n *yaml.Node) {
	n = resolve(n)
	if n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		c.problem(n.Line, path, "expected keys and values (%s), got %s", strings.Join(c.table.keys(path), ", "), describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if first, twice := seen[key.Value]; twice {
			c.problem(key.Line, at, "is set twice, first in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		s := c.table.find(at)
		switch {
		case s != nil && s.kind.isList():
			c.list(s, value)
		case s != nil:
			c.value(s, value)
		case key.Kind == yaml.ScalarNode && key.Value != "" && c.table.isSection(at):
			c.section(at, value)
		default:
			c.problem(key.Line, at, "unknown key%s", c.table.meant(path, key.Value))
		}
	}
}

func (c *fileReader) value(s *Setting, n *yaml.Node) {
	line := n.Line
	n = resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode, !s.kind.takes(n.Tag):
		got := describe(n)
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			got += " " + s.quote(n.Value)
		}
		c.problem(line, s.Path, "expected %s, got %s", s.Expected(), got)
	default:
		if err := s.Check(n.Value); err != nil {
			c.problem(line, s.Path, "%v", err)
			return
		}
		c.values[s.Path] = Value{n.Value, c.at(line)}
	}
}

// takes reports whether a YAML value of that tag can be one of kind k.
func (k kind) takes(tag string) bool {
	switch tag {
	case "!!str":
		return k == text || k == duration || k == size
	case "!!bool":
		return k == boolean
	case "!!int":
		return k == integer || k == number || k == size
	case "!!float":
		return k == number
	default:
		return false
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	default: // a scalar, told by its tag
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!str":
		return "the text"
	case "!!int", "!!float":
		return "the number"
	case "!!bool":
		return "the flag"
	default:
		return "a value of type " + strings.TrimPrefix(n.Tag, "!!")
	}
}

// meant suggests what was meant by an unknown key in a section: a key in the
// same section or, by its exact name, one in another section.
func (t *Table) meant(section, key string) string {
	for _, s := range t.settings {
		if name := s.Path[strings.LastIndexByte(s.Path, '.')+1:]; name == key {
			return didYouMean(s.Path)
		}
	}
	if near := suggest(key, t.keys(section)); near != "" {
		return didYouMean(strings.TrimPrefix(section+"."+near, "."))
	}
	return "; known here: " + strings.Join(t.keys(section), ", ")
}
