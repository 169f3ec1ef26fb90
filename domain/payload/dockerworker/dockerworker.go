// Package dockerworker translates the payloads of docker-worker, a worker that
// is no more, into this worker's own form. Nothing is asked or looked up: what a
// payload means depends on the payload alone.
package dockerworker

import (
	"bytes"
	_ "embed" // the schema
	"encoding/json"
	"fmt"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema of docker-worker's payloads.
func Schema() []byte { return bytes.Clone(schema) }

// NewTranslator returns a translator of payloads. Those of docker-worker are
// checked against its schema, so that violations are in its words.
func NewTranslator(compile payload.Compiler) (payload.Translator, error) {
	checker, err := compile(schema)
	if err != nil {
		return nil, fmt.Errorf("compile schema of docker-worker: %w", err)
	}
	return func(raw []byte) (payload.Translation, []payload.Violation, error) {
		if !recognize(raw) {
			return payload.Translation{Payload: raw, Dialect: payload.GenericWorker}, nil, nil
		}
		violations, err := checker.Check(raw)
		if err != nil || len(violations) > 0 {
			return payload.Translation{}, violations, err
		}
		var p dockerPayload
		if err := json.Unmarshal(raw, &p); err != nil {
			return payload.Translation{}, nil, fmt.Errorf("parse payload: %w", err)
		}
		if violations := p.unavailable(); len(violations) > 0 {
			return payload.Translation{}, violations, nil
		}
		translated, err := json.Marshal(p.translate())
		if err != nil {
			return payload.Translation{}, nil, fmt.Errorf("write payload: %w", err)
		}
		return payload.Translation{Payload: translated, Dialect: payload.DockerWorker}, nil, nil
	}, nil
}

// recognize reports whether a payload is one of docker-worker: an object whose
// command is one flat list, or that has what only docker-worker's have. One with
// an image and no command is, too, unless it has what those have not.
func recognize(raw []byte) bool {
	var p map[string]json.RawMessage
	if err := json.Unmarshal(raw, &p); err != nil {
		return false
	}
	if command, ok := p["command"]; ok {
		var commands []json.RawMessage
		if err := json.Unmarshal(command, &commands); err == nil && len(commands) > 0 {
			return commands[0][0] == '"'
		}
	}
	for _, key := range []string{"cache", "log", "supersederUrl"} {
		if _, ok := p[key]; ok {
			return true
		}
	}
	if artifacts, ok := p["artifacts"]; ok {
		return artifacts[0] == '{'
	}
	for _, key := range []string{"mounts", "logs", "tty", "user", "workdir", "entrypoint", "network"} {
		if _, ok := p[key]; ok {
			return false
		}
	}
	_, ok := p["image"]
	return ok
}
