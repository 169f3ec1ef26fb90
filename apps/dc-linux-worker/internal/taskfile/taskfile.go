// Package taskfile makes a task definition, as a queue takes it, of a file in
// YAML or JSON that has a whole definition or only its payload.
package taskfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Defaults fill in what a file does not say.
type Defaults struct {
	TaskQueueID string
	MaxRunTime  time.Duration // for a file that has only a payload
	Now         time.Time
}

// Task is what a file asks for.
type Task struct {
	Definition  json.RawMessage // complete, for createTask
	TaskQueueID string
	Notes       []string // what of the file was passed over, one sentence each
}

// Error is what is wrong with a file.
type Error struct {
	File    string
	Line    int    // 0 if it is not known
	Key     string // such as "metadata.name"; empty if it is the file as a whole
	Message string
}

// Error returns the file, the line and the key as far as they are known, and
// what is wrong.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d", s, e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Message
}

// Parse makes a definition of the content of the file called name.
//
// Errors: *Error.
func Parse(name string, content []byte, d Defaults) (Task, error) {
	doc, err := decode(name, content)
	if err != nil {
		return Task{}, err
	}
	def := doc.root
	if _, whole := def["payload"]; !whole {
		payload := def
		if _, ok := payload["maxRunTime"]; !ok {
			payload["maxRunTime"] = int64(d.MaxRunTime / time.Second)
		}
		def = map[string]any{"payload": payload, "retries": 0}
	} else if err := doc.check(d.Now); err != nil {
		return Task{}, err
	}

	t := Task{}
	// The queue is fresh: there is no other task in it to wait for.
	for _, key := range []string{"dependencies", "requires"} {
		if deps, ok := def[key].([]any); ok && len(deps) > 0 {
			t.Notes = append(t.Notes, key+" are passed over: the task is the only one in its queue.")
		}
		delete(def, key)
	}
	if created, ok := date(def["created"]); ok && d.Now.Sub(created).Abs() > maxDrift {
		t.Notes = append(t.Notes, "created is passed over: the task is created now.")
		delete(def, "created")
	}
	fill(def, name, d)
	t.TaskQueueID = queueOf(def)
	if t.Definition, err = json.Marshal(def); err != nil {
		return Task{}, &Error{File: name, Message: err.Error()}
	}
	return t, nil
}

// maxDrift is how far from the present a queue lets a task be created.
const maxDrift = 10 * time.Minute

// queueOf returns the task queue of a definition, which may be in its old form.
func queueOf(def map[string]any) string {
	if id, ok := def["taskQueueId"].(string); ok {
		return id
	}
	return fmt.Sprintf("%v/%v", def["provisionerId"], def["workerType"])
}

func fill(def map[string]any, name string, d Defaults) {
	_, provisioner := def["provisionerId"]
	_, workerType := def["workerType"]
	if !provisioner || !workerType {
		setDefault(def, "taskQueueId", d.TaskQueueID)
		delete(def, "provisionerId")
		delete(def, "workerType")
	}

	deadline := d.Now.Add(24 * time.Hour)
	if given, ok := date(def["deadline"]); ok {
		deadline = given
	}
	expires := latest(d.Now.AddDate(1, 0, 0), deadline, artifactExpiries(def["payload"]))
	setDefault(def, "created", stamp(d.Now))
	setDefault(def, "deadline", stamp(deadline))
	setDefault(def, "expires", stamp(expires))

	metadata, ok := def["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		def["metadata"] = metadata
	}
	// Queues take no file URLs.
	source := url.URL{Scheme: "https", Host: "localhost", Path: "/" + name}
	if absolute, err := filepath.Abs(name); err == nil {
		source.Path = absolute
	}
	setDefault(metadata, "name", strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)))
	setDefault(metadata, "description", "A task that is run from a file.")
	setDefault(metadata, "owner", "nobody@localhost.localdomain")
	setDefault(metadata, "source", source.String())
}

func setDefault(m map[string]any, key string, value any) {
	if _, ok := m[key]; !ok {
		m[key] = value
	}
}

// stamp returns a time as Taskcluster writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func date(v any) (time.Time, bool) {
	s, ok := v.(string)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// artifactExpiries returns the latest time at which an artifact in a payload
// expires. It knows both forms: a list, and a map by name.
func artifactExpiries(payload any) time.Time {
	p, _ := payload.(map[string]any)
	artifacts, _ := p["artifacts"].([]any)
	if byName, ok := p["artifacts"].(map[string]any); ok {
		artifacts = slices.Collect(maps.Values(byName))
	}
	var last time.Time
	for _, a := range artifacts {
		if artifact, ok := a.(map[string]any); ok {
			if t, ok := date(artifact["expires"]); ok {
				last = latest(last, t)
			}
		}
	}
	return last
}
