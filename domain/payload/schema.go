// Package payload composes the schema of task.payload from what the engine and
// the plugins define, checks payloads, and gives each owner its own part.
package payload

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Fragment is the part of the payload schema that one owner defines.
type Fragment struct {
	Owner  string // the engine or the plugin, for messages
	Schema []byte // an object schema in JSON: properties and required; nil for none
}

// Violation is one way in which a payload breaks its schema.
type Violation struct {
	Path    string // such as "artifacts[2].type"
	Message string // such as "expected string, got number"
}

// Checker checks documents against one schema.
type Checker interface {
	// Check returns all violations in a stable order, or an error if doc is
	// not JSON.
	Check(doc []byte) ([]Violation, error)
}

// Compiler makes a Checker for a draft-07 schema.
type Compiler func(schema []byte) (Checker, error)

// Schema is the schema of the whole payload. It is safe for concurrent use.
type Schema struct {
	document []byte
	checker  Checker
	parts    map[string]part
}

// part says which properties of the payload an owner gets. The names of a
// property that it shares with other owners are listed, those of one that it
// has to itself are nil.
type part map[string][]string

// object is an object schema that owners define together.
type object struct {
	owners      []string
	description string
	properties  map[string]any // property schemas, or *object where several share one
	required    []string
}

// Compose merges fragments into one schema that refuses unknown properties. A
// property belongs to one fragment, unless all that define it say that it is an
// object with properties of its own: those are merged.
func Compose(compile Compiler, fragments ...Fragment) (*Schema, error) {
	root := &object{properties: map[string]any{}}
	parsed := make([]map[string]any, len(fragments))
	for i, f := range fragments {
		if len(f.Schema) == 0 {
			continue
		}
		if err := json.Unmarshal(f.Schema, &parsed[i]); err != nil {
			return nil, fmt.Errorf("payload schema of %s: %w", f.Owner, err)
		}
		if err := root.merge("payload", f.Owner, parsed[i]); err != nil {
			return nil, err
		}
	}
	doc := root.document()
	doc["$schema"] = "http://json-schema.org/draft-07/schema#"
	doc["title"] = "Task payload"
	document, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("compose payload schema: %w", err)
	}
	checker, err := compile(document)
	if err != nil {
		return nil, fmt.Errorf("compile payload schema: %w", err)
	}
	s := &Schema{document: document, checker: checker, parts: map[string]part{}}
	for i, f := range fragments {
		s.parts[f.Owner] = root.part(parsed[i])
	}
	return s, nil
}

// Document returns the schema as indented JSON.
func (s *Schema) Document() []byte { return slices.Clone(s.document) }

// Check returns every violation in a payload.
func (s *Schema) Check(payload []byte) ([]Violation, error) { return s.checker.Check(payload) }

// Split returns the part of a valid payload that belongs to owner.
func (s *Schema) Split(owner string, payload []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return nil, fmt.Errorf("split payload: %w", err)
	}
	mine := map[string]any{}
	for name, shared := range s.parts[owner] {
		value, ok := all[name]
		switch {
		case !ok:
		case shared == nil:
			mine[name] = value
		default:
			var properties map[string]json.RawMessage
			if err := json.Unmarshal(value, &properties); err != nil {
				return nil, fmt.Errorf("split payload: %s: %w", name, err)
			}
			maps.DeleteFunc(properties, func(p string, _ json.RawMessage) bool { return !slices.Contains(shared, p) })
			mine[name] = properties
		}
	}
	return json.Marshal(mine)
}

// merge adds the properties of an object schema.
func (o *object) merge(path, owner string, schema map[string]any) error {
	o.owners = append(o.owners, owner)
	if d, ok := schema["description"].(string); ok && o.description == "" {
		o.description = d
	}
	required, _ := schema["required"].([]any)
	for _, r := range required {
		if name, ok := r.(string); ok && !slices.Contains(o.required, name) {
			o.required = append(o.required, name)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		at := path + "." + name
		definition, ok := property.(map[string]any)
		if !ok {
			return fmt.Errorf("payload schema of %s: %s: a property's schema must be an object", owner, at)
		}
		existing, taken := o.properties[name]
		shared, mergeable := existing.(*object)
		switch {
		case !taken && isObject(definition):
			shared = &object{properties: map[string]any{}}
			o.properties[name] = shared
		case !taken:
			o.properties[name] = definition
			continue
		case !mergeable || !isObject(definition):
			return fmt.Errorf("payload schema of %s: %s is defined by another owner already", owner, at)
		}
		if err := shared.merge(at, owner, definition); err != nil {
			return err
		}
	}
	return nil
}

// isObject reports whether a property schema can be shared: an object whose
// properties are all named.
func isObject(schema map[string]any) bool {
	extra, open := schema["additionalProperties"]
	return schema["type"] == "object" && schema["properties"] != nil && (!open || extra == false)
}

// document returns o as a JSON schema.
func (o *object) document() map[string]any {
	properties := map[string]any{}
	for name, p := range o.properties {
		if shared, ok := p.(*object); ok {
			p = shared.document()
		}
		properties[name] = p
	}
	doc := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if o.description != "" {
		doc["description"] = o.description
	}
	if len(o.required) > 0 {
		slices.Sort(o.required)
		doc["required"] = o.required
	}
	return doc
}

// part returns what a fragment's owner gets of the payload.
func (o *object) part(schema map[string]any) part {
	mine := part{}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		mine[name] = nil
		shared, ok := o.properties[name].(*object)
		if !ok || len(shared.owners) == 1 {
			continue
		}
		definition, _ := property.(map[string]any)
		sub, _ := definition["properties"].(map[string]any)
		mine[name] = slices.Sorted(maps.Keys(sub))
	}
	return mine
}
