package taskfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// property is what a key of a definition must hold, in words.
type property string

const (
	text    property = "text"
	moment  property = "a date such as 2030-01-31T12:00:00Z"
	number  property = "a whole number"
	texts   property = "a list of texts"
	mapping property = "keys and values"
)

// definition is the keys that a definition may have.
func definition() map[string]property {
	return map[string]property{
		"taskQueueId":   text,
		"provisionerId": text,
		"workerType":    text,
		"schedulerId":   text,
		"projectId":     text,
		"taskGroupId":   text,
		"dependencies":  texts,
		"requires":      text,
		"routes":        texts,
		"priority":      text,
		"retries":       number,
		"created":       moment,
		"deadline":      moment,
		"expires":       moment,
		"scopes":        texts,
		"payload":       mapping,
		"metadata":      mapping,
		"tags":          mapping,
		"extra":         mapping,
	}
}

// metadata is the keys that the metadata of a definition may have.
func metadata() map[string]property {
	return map[string]property{"name": text, "description": text, "owner": text, "source": text}
}

// check returns the first thing that is wrong with a whole definition. The
// payload is for the worker to check.
func (d *document) check(now time.Time) error {
	if err := d.checkKeys(d.root, definition()); err != nil {
		return err
	}
	if m, ok := d.root["metadata"].(map[string]any); ok {
		if err := d.checkKeys(m, metadata(), "metadata"); err != nil {
			return err
		}
	}
	if deadline, ok := date(d.root["deadline"]); ok && !deadline.After(now) {
		return d.wrong("has passed: remove it, and the task has a day", "deadline")
	}
	return nil
}

func (d *document) checkKeys(m map[string]any, known map[string]property, path ...string) error {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		at := slices.Concat(path, []string{key})
		want, ok := known[key]
		if !ok {
			return d.wrong("unknown key; known here: "+strings.Join(slices.Sorted(maps.Keys(known)), ", "), at...)
		}
		if !want.holds(m[key]) {
			return d.wrong(fmt.Sprintf("expected %s, got %s", want, describe(m[key])), at...)
		}
	}
	return nil
}

func (d *document) wrong(message string, keys ...string) error {
	return &Error{File: d.name, Line: d.line(keys...), Key: strings.Join(keys, "."), Message: message}
}

func (p property) holds(v any) bool {
	switch p {
	case moment:
		_, ok := date(v)
		return ok
	case number:
		switch n := v.(type) {
		case int:
			return true
		case json.Number:
			_, err := n.Int64()
			return err == nil
		}
		return false
	case texts:
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(v any) bool { return !text.holds(v) })
	case mapping:
		_, ok := v.(map[string]any)
		return ok
	default:
		_, ok := v.(string)
		return ok
	}
}
