package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

func schemaIsAFragment(_ context.Context, s Subject) error {
	schema := s.Plugin.PayloadSchema()
	if schema == nil {
		return nil
	}
	var fragment struct {
		Type       string                     `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if err := json.Unmarshal(schema, &fragment); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if fragment.Type != "object" || len(fragment.Properties) == 0 {
		return errors.New("schema: not an object with properties")
	}
	for _, name := range fragment.Required {
		if _, ok := fragment.Properties[name]; !ok {
			return fmt.Errorf("schema: %s is required but not defined", name)
		}
	}
	if _, err := s.Compile(schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if _, err := payload.Compose(s.Compile, payload.Fragment{Owner: s.Plugin.Name(), Schema: schema}); err != nil {
		return fmt.Errorf("compose the schema with others: %w", err)
	}
	return nil
}

// A schema is what users read of a plugin.
func schemaIsDocumented(_ context.Context, s Subject) error {
	schema := s.Plugin.PayloadSchema()
	if schema == nil {
		return nil
	}
	var doc map[string]any
	if err := json.Unmarshal(schema, &doc); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return documented("payload", doc)
}

// documented looks for properties without a title or a description.
func documented(at string, schema map[string]any) error {
	var errs []error
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property, _ := properties[name].(map[string]any)
		here := at + "." + name
		for _, key := range []string{"title", "description"} {
			if text, _ := property[key].(string); text == "" {
				errs = append(errs, fmt.Errorf("schema: %s has no %s", here, key))
			}
		}
		errs = append(errs, documented(here, property))
	}
	if items, ok := schema["items"].(map[string]any); ok {
		errs = append(errs, documented(at+"[]", items))
	}
	return errors.Join(errs...)
}

func schemaAcceptsThePayload(_ context.Context, s Subject) error {
	schema := s.Plugin.PayloadSchema()
	if schema == nil {
		return nil
	}
	checker, err := s.Compile(schema)
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	violations, err := checker.Check([]byte(s.Payload))
	if err != nil {
		return fmt.Errorf("check the payload %s: %w", s.Payload, err)
	}
	if len(violations) > 0 {
		return fmt.Errorf("the payload %s is not valid: %v", s.Payload, violations)
	}
	return nil
}
