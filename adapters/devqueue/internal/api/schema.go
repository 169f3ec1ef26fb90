package api

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schema/*.json
var schemaFiles embed.FS

// compiled returns the schemas of inputs by name. They are part of the binary:
// one that does not compile is an error of every call, which a test finds.
var compiled = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	files, err := schemaFiles.ReadDir("schema")
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.AssertFormat()
	var names []string
	for _, file := range files {
		raw, err := schemaFiles.ReadFile("schema/" + file.Name())
		if err != nil {
			return nil, fmt.Errorf("read schema %s: %w", file.Name(), err)
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("parse schema %s: %w", file.Name(), err)
		}
		if err := c.AddResource("schema:///"+file.Name(), document); err != nil {
			return nil, fmt.Errorf("add schema %s: %w", file.Name(), err)
		}
		if defs, ok := document.(map[string]any)["definitions"].(map[string]any); ok {
			for name := range defs {
				names = append(names, file.Name()+"#/definitions/"+name)
			}
		}
	}
	schemas := map[string]*jsonschema.Schema{}
	for _, name := range names {
		schema, err := c.Compile("schema:///" + name)
		if err != nil {
			return nil, fmt.Errorf("compile schema %s: %w", name, err)
		}
		file, definition, _ := strings.Cut(name, ".json#/definitions/")
		schemas[file+"/"+definition] = schema
	}
	return schemas, nil
})

// validate checks the input against a schema: "<service>/<name>".
func (c *Call) validate(name string) error {
	schemas, err := compiled()
	if err != nil {
		return err
	}
	schema := schemas[name]
	if schema == nil {
		return fmt.Errorf("there is no schema %s", name)
	}
	if kind := c.Request.Header.Get("Content-Type"); !isJSON(kind) {
		return &Error{"MalformedPayload", fmt.Sprintf("Payload must be JSON with content-type: application/json got content-type: %q", kind)}
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.body))
	if err != nil {
		return &Error{"MalformedPayload", "Failed to parse the payload as JSON: " + err.Error()}
	}
	err = schema.Validate(value)
	if err == nil {
		return nil
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fmt.Errorf("validate against %s: %w", name, err)
	}
	var lines []string
	collect(invalid.BasicOutput(), &lines)
	slices.Sort(lines)
	return &Error{"InputValidationError", fmt.Sprintf("Schema Validation Failed!\nRejecting Schema: %s\nErrors:\n%s", name, strings.Join(slices.Compact(lines), "\n"))}
}

// collect appends a line for each violation.
func collect(unit *jsonschema.OutputUnit, lines *[]string) {
	if unit.Error != nil && len(unit.Errors) == 0 {
		*lines = append(*lines, fmt.Sprintf("  * data%s %s", strings.ReplaceAll(unit.InstanceLocation, "/", "."), unit.Error))
	}
	for i := range unit.Errors {
		collect(&unit.Errors[i], lines)
	}
}
