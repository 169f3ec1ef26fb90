package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// composeSchema makes the schema of the payloads that this worker understands.
// Disabled plugins are in it, so that a task which asks for one is told so.
func composeSchema(deps Deps) (*payload.Schema, error) {
	names := map[string]bool{}
	fragments := []payload.Fragment{{Owner: deps.Engine.Name(), Schema: deps.Engine.PayloadSchema()}}
	for _, p := range slices.Concat(deps.Plugins, deps.Disabled) {
		if names[p.Name()] || p.Name() == deps.Engine.Name() {
			return nil, fmt.Errorf("two plugins, or plugin and engine, are called %s", p.Name())
		}
		names[p.Name()] = true
		fragments = append(fragments, payload.Fragment{Owner: p.Name(), Schema: p.PayloadSchema()})
	}
	return payload.Compose(deps.Compile, fragments...)
}

// contents is a checked payload: the part of each owner.
type contents struct {
	parts   map[string][]byte
	dialect payload.Dialect
}

// readPayload checks the payload of a task, whatever its dialect, and returns
// the part of each owner. It writes every violation, and the schema, to the log.
//
// Faults: Malformed.
func (w *Worker) readPayload(def task.Definition, log *tasklog.Log) (contents, error) {
	translation, violations, err := w.translate(def.Payload)
	if err == nil && len(violations) == 0 {
		violations, err = w.schema.Check(translation.Payload)
	}
	if err != nil {
		return contents{}, fault.Malformedf("payload: %v", err)
	}
	if len(violations) > 0 {
		var list strings.Builder
		for _, v := range violations {
			fmt.Fprintf(&list, "%s: %s\n", v.Path, v.Message)
		}
		log.Errorf("The payload of the task does not match the schema of worker pool %s:\n%s", w.cfg.Pool, list.String())
		log.Infof("The schema is:\n%s", w.schema.Document())
		return contents{}, fault.Malformedf("task payload is malformed: %d violation(s) of the schema, listed above", len(violations))
	}
	c := contents{parts: map[string][]byte{}, dialect: translation.Dialect}
	owners := []string{w.deps.Engine.Name()}
	for _, p := range w.deps.Plugins {
		owners = append(owners, p.Name())
	}
	for _, owner := range owners {
		if c.parts[owner], err = w.schema.Split(owner, translation.Payload); err != nil {
			return contents{}, err
		}
	}
	return c, w.refuseDisabled(translation.Payload)
}

// translate puts a payload into the worker's own form.
func (w *Worker) translate(raw []byte) (payload.Translation, []payload.Violation, error) {
	if w.deps.Translate == nil {
		return payload.Translation{Payload: raw, Dialect: payload.GenericWorker}, nil, nil
	}
	return w.deps.Translate(raw)
}

// refuseDisabled refuses a payload that asks for what a disabled plugin does.
func (w *Worker) refuseDisabled(translated []byte) error {
	for _, p := range w.deps.Disabled {
		part, err := w.schema.Split(p.Name(), translated)
		if err != nil {
			return err
		}
		ask := requested
		if r, ok := p.(plugin.Requester); ok {
			ask = r.Requested
		}
		asked, err := ask(part)
		if err != nil {
			return err
		}
		if asked != "" {
			return fault.Malformedf("feature %s is disabled on worker pool %s: %s is not available to tasks here", p.Name(), w.cfg.Pool, asked)
		}
	}
	return nil
}

// requested returns a property by which a payload asks for a feature, or "". A
// flag that is false asks for nothing.
func requested(part []byte) (string, error) {
	var properties map[string]json.RawMessage
	if err := json.Unmarshal(part, &properties); err != nil {
		return "", fmt.Errorf("read payload: %w", err)
	}
	for name, value := range properties {
		if name != "features" {
			return "payload." + name, nil
		}
		var flags map[string]any
		if err := json.Unmarshal(value, &flags); err != nil {
			return "", fmt.Errorf("read payload: %w", err)
		}
		for flag, on := range flags {
			if on != false {
				return "payload.features." + flag, nil
			}
		}
	}
	return "", nil
}

// newAuthorizer returns what checks a task's scopes. It asks for the expansion
// of roles at most once, and only where it matters.
func newAuthorizer(scopes task.Scopes, expander auth.Expander) auth.Authorize {
	var mu sync.Mutex
	var expanded task.Scopes
	return func(ctx context.Context, anyOf ...task.Scopes) error {
		if scopes.SatisfyAny(anyOf...) {
			return nil
		}
		if scopes.Expandable() {
			mu.Lock()
			defer mu.Unlock()
			if expanded == nil {
				all, err := expander.Expand(ctx, scopes)
				if err != nil {
					return fault.Unavailablef(err, "the scopes of the task could not be expanded")
				}
				expanded = all
			}
			if expanded.SatisfyAny(anyOf...) {
				return nil
			}
		}
		var sets []string
		for _, set := range anyOf {
			sets = append(sets, strings.Join(set, " and "))
		}
		return fault.Malformedf("the task lacks scopes: it needs %s", strings.Join(sets, ", or "))
	}
}
