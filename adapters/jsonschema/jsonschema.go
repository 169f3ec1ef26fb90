// Package jsonschema checks documents against JSON schemas of draft-07, and says
// what is wrong with them in words for whoever wrote the document.
package jsonschema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

// at is where the compiler keeps the schema. Nothing is ever loaded from there.
const at = "payload:///schema"

// Compile is a [payload.Compiler]. References lead to places within the schema
// only: nothing is loaded from files or the network.
func Compile(schema []byte) (payload.Checker, error) {
	doc, err := decode(schema)
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	if err := c.AddResource(at, doc); err != nil {
		return nil, fmt.Errorf("add schema: %w", err)
	}
	compiled, err := c.Compile(at)
	if err != nil {
		return nil, fmt.Errorf("compile schema: %w", err)
	}
	return checker{compiled}, nil
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("schema refers to %s: only references within it are followed", url)
}

type checker struct{ schema *jsonschema.Schema }

// Check implements payload.Checker. The violations are sorted by path.
func (c checker) Check(doc []byte) ([]payload.Violation, error) {
	value, err := decode(doc)
	if err != nil {
		return nil, err
	}
	if found := extremes(nil, value, nil, value); len(found) > 0 {
		return sorted(found), nil
	}
	err = c.schema.Validate(value)
	if err == nil {
		return nil, nil
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return nil, fmt.Errorf("check against schema: %w", err)
	}
	return sorted(explain(value, invalid)), nil
}

// decode parses a JSON document as the validator wants it, numbers unrounded.
func decode(doc []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("parse JSON: there is more after the document's end")
	}
	return v, nil
}
