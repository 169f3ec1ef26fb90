package taskfile

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func defaults() Defaults {
	return Defaults{TaskQueueID: "local/test", MaxRunTime: time.Hour, Now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func TestParse(t *testing.T) {
	metadata := map[string]any{
		"name": "t", "description": "A task that is run from a file.", "owner": "nobody@localhost.localdomain", "source": "https://localhost/tmp/t.yml",
	}
	for _, tt := range []struct {
		name, content string
		want          map[string]any // beside metadata
		queue         string
		notes         []string
	}{
		{
			name:    "only a payload",
			content: "command: [[a, 1, on, 2001-01-01, 0x10, 1.50]]\nenv: {1: '2', yes: 'no'}",
			want: map[string]any{
				"taskQueueId": "local/test", "retries": 0.,
				"created": "2030-01-02T03:04:05.000Z", "deadline": "2030-01-03T03:04:05.000Z", "expires": "2031-01-02T03:04:05.000Z",
				"payload": map[string]any{
					"maxRunTime": 3600., "command": []any{[]any{"a", 1., "on", "2001-01-01", 16., 1.5}},
					"env": map[string]any{"1": "2", "yes": "no"},
				},
			},
		},
		{
			name:    "a payload in JSON keeps its numbers",
			content: `{"maxRunTime": 60, "big": 12345678901234567890123}`,
			want: map[string]any{
				"taskQueueId": "local/test", "retries": 0.,
				"created": "2030-01-02T03:04:05.000Z", "deadline": "2030-01-03T03:04:05.000Z", "expires": "2031-01-02T03:04:05.000Z",
				"payload": map[string]any{"maxRunTime": 60., "big": 12345678901234567890123.},
			},
		},
		{
			name: "a whole definition is kept, but for what cannot be",
			content: `provisionerId: p
workerType: w
dependencies: [fN1SbArXTPSVFNUvaOlinQ]
requires: all-resolved
created: 2020-01-01T00:00:00Z
deadline: 2030-01-04T00:00:00Z
retries: 2
scopes: [a, b]
extra: {a: [1]}
payload: {}`,
			queue: "p/w",
			want: map[string]any{
				"provisionerId": "p", "workerType": "w", "retries": 2., "scopes": []any{"a", "b"}, "extra": map[string]any{"a": []any{1.}},
				"created": "2030-01-02T03:04:05.000Z", "deadline": "2030-01-04T00:00:00Z", "expires": "2031-01-02T03:04:05.000Z",
				"payload": map[string]any{},
			},
			notes: []string{
				"dependencies are passed over: the task is the only one in its queue.",
				"created is passed over: the task is created now.",
			},
		},
		{
			name:    "a task expires after its artifacts",
			content: "payload: {artifacts: [{expires: 2040-01-01T00:00:00Z}, {expires: 2039-01-01T00:00:00Z}, 3, {expires: never}]}\ntaskQueueId: a/b",
			queue:   "a/b",
			want: map[string]any{
				"taskQueueId": "a/b",
				"created":     "2030-01-02T03:04:05.000Z", "deadline": "2030-01-03T03:04:05.000Z", "expires": "2040-01-01T00:00:00.000Z",
				"payload": map[string]any{"artifacts": []any{
					map[string]any{"expires": "2040-01-01T00:00:00Z"}, map[string]any{"expires": "2039-01-01T00:00:00Z"}, 3., map[string]any{"expires": "never"},
				}},
			},
		},
		{
			name:    "artifacts by name expire, too",
			content: "payload: {artifacts: {public/a: {expires: 2040-01-01T00:00:00Z}}}\nprovisionerId: a",
			want: map[string]any{
				"taskQueueId": "local/test",
				"created":     "2030-01-02T03:04:05.000Z", "deadline": "2030-01-03T03:04:05.000Z", "expires": "2040-01-01T00:00:00.000Z",
				"payload": map[string]any{"artifacts": map[string]any{"public/a": map[string]any{"expires": "2040-01-01T00:00:00Z"}}},
			},
		},
		{
			name:    "keys can be merged",
			content: "payload: {<<: {a: 1}, b: 2}",
			want: map[string]any{
				"taskQueueId": "local/test",
				"created":     "2030-01-02T03:04:05.000Z", "deadline": "2030-01-03T03:04:05.000Z", "expires": "2031-01-02T03:04:05.000Z",
				"payload": map[string]any{"a": 1., "b": 2.},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task, err := Parse("/tmp/t.yml", []byte(tt.content), defaults())
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(task.Definition, &got); err != nil {
				t.Fatal(err)
			}
			tt.want["metadata"] = metadata
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("definition (-want +got):\n%s", diff)
			}
			if tt.queue == "" {
				tt.queue = "local/test"
			}
			if task.TaskQueueID != tt.queue {
				t.Errorf("task queue is %s, want %s", task.TaskQueueID, tt.queue)
			}
			if diff := cmp.Diff(tt.notes, task.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"an empty file", "", "f: is empty: expected a task definition, or its payload"},
		{"a list", "# c\n- 1", "f:2: expected keys and values of a task definition, or of its payload, got a list"},
		{"a list in JSON", "[1]", "f:1: expected keys and values of a task definition, or of its payload, got a list"},
		{"nothing", "null", "f:1: expected keys and values of a task definition, or of its payload, got nothing"},
		{"text", "hello", "f:1: expected keys and values of a task definition, or of its payload, got text"},
		{"broken JSON", "{\"a\":\n 1,,}", "f:1: is not valid YAML or JSON: did not find expected node content"},
		{"a key twice", "a: 1\nb: 2\na: 3", "f:3: is not valid YAML or JSON: mapping key \"a\" already defined at line 1"},
		{"a key that is no text", "payload: {}\n? [a]\n: b", "f:2: a key must be text"},
		{"an infinite number", "payload:\n  a: .inf", "f:2: .inf is not a number that JSON has"},
		{"a payload that is none", "payload: 3", "f:1: payload: expected keys and values, got a number"},
		{"an unknown key of metadata", "payload: {}\nmetadata:\n  nme: a", "f:3: metadata.nme: unknown key; known here: description, name, owner, source"},
		{"a list of other things than texts", "payload: {}\nscopes:\n- 3", "f:2: scopes: expected a list of texts, got a list"},
		{"half a retry", "payload: {}\nretries: 0.5", "f:2: retries: expected a whole number, got a number"},
		{"half a retry in JSON", "{\"payload\": {},\n \"retries\": 0.5}", "f:2: retries: expected a whole number, got a number"},
		{"a date that is none", "payload: {}\nexpires: {$fromNow: 1 day}", "f:2: expires: expected a date such as 2030-01-31T12:00:00Z, got keys and values"},
		{"a deadline that has passed", "payload: {}\ndeadline: 2029-01-01T00:00:00Z", "f:2: deadline: has passed: remove it, and the task has a day"},
		{"an alias of itself", "a: &a [*a]", "f: is not valid YAML or JSON: anchor 'a' value contains itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tt.content), defaults())
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("error is %q, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("command: [[/bin/true]]"))
	f.Add([]byte(`{"payload": {"a": 1e999}}`))
	f.Add([]byte("payload: &a {b: *a}"))
	f.Add([]byte("payload: {<<: [{a: 1}, {b: 2}]}\nmetadata: !!binary aGVsbG8="))
	f.Add([]byte("a: !!float 3\n? !!null\n: 1"))
	f.Fuzz(func(t *testing.T, content []byte) {
		task, err := Parse("f", content, defaults())
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("error is not about the file: %v", err)
			}
			return
		}
		var got struct {
			Payload  map[string]json.RawMessage `json:"payload"`
			Deadline time.Time                  `json:"deadline"`
		}
		if err := json.Unmarshal(task.Definition, &got); err != nil {
			t.Fatal(err)
		}
		if got.Payload == nil || got.Deadline.IsZero() {
			t.Errorf("definition lacks something: %s", task.Definition)
		}
	})
}
