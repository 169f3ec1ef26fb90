package payload_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

const (
	native   = `{"type":"object","properties":{"command":{"type":"array"},"features":{"type":"object","properties":{"runAsAdministrator":{"type":"boolean"}},"additionalProperties":false}},"required":["command"]}`
	livelog  = `{"type":"object","properties":{"logs":{"type":"object","properties":{"live":{"type":"string"}}},"features":{"type":"object","description":"flags","properties":{"liveLog":{"type":"boolean"}}}},"required":["logs","command"]}`
	envFrag  = `{"type":"object","properties":{"env":{"type":"object","additionalProperties":{"type":"string"}}}}`
	envClash = `{"type":"object","properties":{"env":{"type":"object","properties":{"A":{}},"additionalProperties":{"type":"string"}}}}`
)

// keepSchema compiles nothing and accepts everything.
func keepSchema(schema []byte) (payload.Checker, error) { return accept{}, nil }

type accept struct{}

func (accept) Check([]byte) ([]payload.Violation, error) { return nil, nil }

func fragments(schemas ...string) []payload.Fragment {
	var fs []payload.Fragment
	for i, s := range schemas {
		fs = append(fs, payload.Fragment{Owner: string(rune('a' + i)), Schema: []byte(s)})
	}
	return fs
}

func TestComposeMergesSharedObjects(t *testing.T) {
	s, err := payload.Compose(keepSchema, fragments(native, livelog, envFrag, "")...)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(s.Document(), &got); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal([]byte(`{
	  "$schema": "http://json-schema.org/draft-07/schema#", "title": "Task payload", "type": "object", "additionalProperties": false,
	  "required": ["command", "logs"],
	  "properties": {
	    "command": {"type": "array"},
	    "env": {"type": "object", "additionalProperties": {"type": "string"}},
	    "logs": {"type": "object", "additionalProperties": false, "properties": {"live": {"type": "string"}}},
	    "features": {"type": "object", "description": "flags", "additionalProperties": false,
	      "properties": {"liveLog": {"type": "boolean"}, "runAsAdministrator": {"type": "boolean"}}}
	  }}`), &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
}

func TestComposeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		schemas []string
		want    string
	}{
		{"a property with two owners", []string{envFrag, envFrag}, "payload schema of b: payload.env is defined by another owner already"},
		{"an open object with two owners", []string{envClash, envClash}, "payload.env is defined by another owner already"},
		{"a flag with two owners", []string{livelog, livelog}, "is defined by another owner already"},
		{"what is not JSON", []string{"{"}, "payload schema of a"},
		{"a property that is not a schema", []string{`{"properties":{"x":1}}`}, "payload.x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := payload.Compose(keepSchema, fragments(tt.schemas...)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
	broken := errors.New("broken")
	_, err := payload.Compose(func([]byte) (payload.Checker, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got error %v, want the compiler's", err)
	}
}

func TestSplitGivesEachOwnerItsOwn(t *testing.T) {
	s, err := payload.Compose(keepSchema, fragments(native, livelog, envFrag, "")...)
	if err != nil {
		t.Fatal(err)
	}
	const doc = `{"command":[["a"]],"env":{"A":"1"},"logs":{"live":"x"},"features":{"liveLog":false,"runAsAdministrator":true}}`
	for owner, want := range map[string]string{
		"a": `{"command":[["a"]],"features":{"runAsAdministrator":true}}`,
		"b": `{"features":{"liveLog":false},"logs":{"live":"x"}}`,
		"c": `{"env":{"A":"1"}}`,
		"d": `{}`,
		"x": `{}`,
	} {
		got, err := s.Split(owner, []byte(doc))
		if err != nil || string(got) != want {
			t.Errorf("%s gets %s, %v; want %s", owner, got, err, want)
		}
	}
	if got, err := s.Split("a", []byte(`[]`)); err == nil {
		t.Errorf("split an array into %s", got)
	}
}

// FuzzSplit checks that no owner ever sees a property of another.
func FuzzSplit(f *testing.F) {
	s, err := payload.Compose(keepSchema, fragments(native, livelog, envFrag)...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"command":[],"features":{"liveLog":true}}`)
	f.Add(`{"features":null}`)
	f.Fuzz(func(t *testing.T, doc string) {
		got, err := s.Split("c", []byte(doc))
		if err != nil {
			return
		}
		var mine map[string]json.RawMessage
		if err := json.Unmarshal(got, &mine); err != nil {
			t.Fatalf("split %q into %q: %v", doc, got, err)
		}
		delete(mine, "env")
		if len(mine) > 0 {
			t.Errorf("the owner of env gets %s", got)
		}
	})
}
