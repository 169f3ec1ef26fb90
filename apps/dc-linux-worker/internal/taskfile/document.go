package taskfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a file that has been parsed.
type document struct {
	name string
	root map[string]any
	node *yaml.Node // of the root, for lines; nil if they are not known
}

// decode parses a file: as JSON if it is that, so that its numbers stay as they
// are, or else as YAML.
func decode(name string, content []byte) (*document, error) {
	doc := &document{name: name}
	if json.Valid(content) {
		d := json.NewDecoder(bytes.NewReader(content))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, doc.invalid(err)
		}
		// JSON that YAML has no mind for is without line numbers.
		var node yaml.Node
		if yaml.Unmarshal(content, &node) == nil {
			doc.node = node.Content[0]
		}
		return doc.rooted(v)
	}

	d := yaml.NewDecoder(bytes.NewReader(content))
	var node yaml.Node
	if err := d.Decode(&node); errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Message: "is empty: expected a task definition, or its payload"}
	} else if err != nil {
		return nil, doc.invalid(err)
	}
	var more yaml.Node
	if err := d.Decode(&more); err == nil {
		return nil, &Error{File: name, Line: more.Line, Message: "there is a second document: expected one task"}
	} else if !errors.Is(err, io.EOF) {
		return nil, doc.invalid(err)
	}
	doc.node = node.Content[0]
	if err := doc.asJSON(&node); err != nil {
		return nil, err
	}
	var v any
	if err := node.Decode(&v); err != nil {
		return nil, doc.invalid(err)
	}
	return doc.rooted(v)
}

func (d *document) rooted(v any) (*document, error) {
	var ok bool
	if d.root, ok = v.(map[string]any); ok {
		return d, nil
	}
	line := 0
	if d.node != nil {
		line = d.node.Line
	}
	return nil, &Error{File: d.name, Line: line, Message: "expected keys and values of a task definition, or of its payload, got " + describe(v)}
}

// asJSON has keys and dates of a YAML document taken as text, as JSON has them.
func (d *document) asJSON(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!timestamp":
		n.Tag = "!!str"
	case n.Kind == yaml.ScalarNode && n.Tag == "!!float" && strings.ContainsAny(n.Value, "iInN"):
		return &Error{File: d.name, Line: n.Line, Message: n.Value + " is not a number that JSON has"}
	case n.Kind == yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				return &Error{File: d.name, Line: key.Line, Message: "a key must be text"}
			}
			if key.Tag != "!!merge" {
				key.Tag = "!!str"
			}
		}
	}
	for _, child := range n.Content {
		if err := d.asJSON(child); err != nil {
			return err
		}
	}
	return nil
}

// invalid returns the error that an error of the parser is.
func (d *document) invalid(err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	message = strings.TrimPrefix(message, "unmarshal errors:\n  ")
	message, _, _ = strings.Cut(message, "\n")
	e := &Error{File: d.name}
	if _, err := fmt.Sscanf(message, "line %d:", &e.Line); err == nil {
		_, message, _ = strings.Cut(message, ": ")
	}
	e.Message = "is not valid YAML or JSON: " + message
	return e
}

// line returns the line of a key of the root, or 0.
func (d *document) line(keys ...string) int {
	n, line := d.node, 0
	for _, key := range keys {
		if n == nil || n.Kind != yaml.MappingNode {
			return line
		}
		mapping := n
		n = nil
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if mapping.Content[i].Value == key {
				line, n = mapping.Content[i].Line, mapping.Content[i+1]
			}
		}
	}
	return line
}

func describe(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case string:
		return "text"
	case bool:
		return "a flag"
	case []any:
		return "a list"
	case map[string]any:
		return "keys and values"
	default:
		return "a number"
	}
}
