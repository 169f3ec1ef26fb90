package jsonschema_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

const schema = `{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "required": ["command", "maxRunTime"],
  "definitions": {"name": {"type": "string", "minLength": 2, "maxLength": 5}},
  "properties": {
    "command": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "array", "items": {"type": "string"}}},
    "maxRunTime": {"type": "integer", "minimum": 1, "maximum": 86400, "multipleOf": 1},
    "env": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 3},
    "name": {"$ref": "#/definitions/name"},
    "image": {"anyOf": [{"type": "string"}, {"$ref": "#/definitions/name"}, {"type": "object", "required": ["name"]}]},
    "version": {"const": 2},
    "none": false,
    "not": {"not": {"type": "string"}},
    "slug": {"type": "string", "pattern": "^[a-z]+$"},
    "ratio": {"exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    "codes": {"type": "array", "uniqueItems": true, "contains": {"type": "integer"}},
    "limits": {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^x"}, "dependencies": {"x1": ["x2"]}},
    "features": {"type": "object", "additionalProperties": false, "properties": {"liveLog": {"type": "boolean"}}},
    "mounts": {"type": "array", "items": {"oneOf": [
      {"type": "object", "additionalProperties": false, "required": ["file"], "properties": {"file": {"type": "string"}}},
      {"type": "object", "additionalProperties": false, "required": ["directory", "cacheName"],
       "properties": {"directory": {"type": "string"}, "cacheName": {"type": "string"}}}]}},
    "either": {"oneOf": [{"type": "integer"}, {"minimum": 3}]},
    "artifacts": {"type": "array", "items": {
      "type": "object", "additionalProperties": false, "required": ["type", "path"],
      "properties": {
        "type": {"type": "string", "enum": ["file", "directory"]},
        "path": {"type": "string"},
        "expires": {"type": "string", "format": "date-time"}}}}
  }
}`

func compile(tb testing.TB) payload.Checker {
	tb.Helper()
	c, err := jsonschema.Compile([]byte(schema))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestViolations(t *testing.T) {
	c := compile(t)
	for _, tt := range []struct {
		name string
		doc  string // what there is but command and maxRunTime
		want []string
	}{
		{"none", `"env": {"A": "b"}, "artifacts": [{"type": "file", "path": "x", "expires": "2027-01-01T00:00:00.000Z"}]`, nil},
		{"a whole number may have a fraction of zero", `"version": 2.0`, nil},
		{"an unknown property", `"comand": []`, []string{`comand: unknown property`}},
		{
			"all unknown properties", `"b": 1, "a": 2, "features": {"livelog": true}`,
			[]string{`a: unknown property`, `b: unknown property`, `features.livelog: unknown property`},
		},
		{
			"missing and wrong ones at once", `"artifacts": [{"type": "file", "path": "x"}, {}, {"type": "dir", "path": 3}]`,
			[]string{
				`artifacts[1].path: required property is missing`,
				`artifacts[1].type: required property is missing`,
				`artifacts[2].path: expected string, got number`,
				`artifacts[2].type: must be one of "file", "directory", got "dir"`,
			},
		},
		{"a variable that is no string", `"env": {"TOTAL": 3}`, []string{`env.TOTAL: expected string, got number`}},
		{
			"names that could forge a line are quoted", `"env": {"a.b": 1, "x\n[taskcluster:error] y": null}`,
			[]string{`env["a.b"]: expected string, got number`, `env["x\n[taskcluster:error] y"]: expected string, got null`},
		},
		{
			"long values are shortened", `"slug": "` + strings.Repeat("A", 500) + `"`,
			[]string{`slug: "` + strings.Repeat("A", 100) + `"… does not match the pattern ^[a-z]+$`},
		},
		{"a list that looks like an object", `"env": []`, []string{`env: expected object, got array`}},
		{"a date", `"artifacts": [{"type": "file", "path": "x", "expires": "tomorrow"}]`, []string{`artifacts[0].expires: "tomorrow" is not a valid date-time`}},
		{"a reference within the schema", `"name": "x"`, []string{`name: must have at least 2 characters, has 1`}},
		{"too long", `"name": "xxxxxx"`, []string{`name: must have at most 5 characters, has 6`}},
		{"the closest of several forms", `"mounts": [{"file": "a"}, {"directory": "b"}, {"file": 1}, 7]`, []string{
			`mounts[1].cacheName: required property is missing`,
			`mounts[2].file: expected string, got number`,
			`mounts[3]: expected object, got number`,
		}},
		{"the alternative of the right type", `"image": {"nam": "x"}`, []string{`image.name: required property is missing`}},
		{"more than one form", `"either": 4`, []string{`either: matches more than one of the forms that exclude each other`}},
		{"a constant", `"version": 3`, []string{`version: must be 2, got 3`}},
		{"what is never allowed", `"none": null, "not": "x"`, []string{`none: not allowed`, `not: not allowed`}},
		{"bounds that exclude", `"ratio": 0`, []string{`ratio: must be more than 0, got 0`}},
		{"bounds above", `"ratio": 0.5`, []string{`ratio: must be less than 0.5, got 0.5`}},
		{"lists", `"codes": [1, 2, 1]`, []string{`codes: items 0 and 2 are the same`}},
		{"what a list must contain", `"codes": ["a"]`, []string{`codes: no item is as it must be`}},
		{"names of properties", `"limits": {"y": 1}`, []string{`payload: no property may have the name "y"`}},
		{"properties that need others", `"limits": {"x1": 1}`, []string{`limits.x2: required property is missing, since there is "x1"`}},
		{"too few properties", `"limits": {}`, []string{`limits: must have at least 1 properties, has 0`}},
		{"too many properties", `"env": {"a":"","b":"","c":"","d":""}`, []string{`env: must have at most 3 properties, has 4`}},
		{
			"numbers beyond all bounds", `"version": 1e999999, "codes": [0e0, -1e-999999999, 1E99999999999999999999]`,
			[]string{`codes[1]: number is out of range`, `codes[2]: number is out of range`, `version: number is out of range`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkDoc(t, c, `{"command": [["true"]], "maxRunTime": 60, `+tt.doc+`}`, tt.want)
		})
	}
}

func TestViolationsOfTheWhole(t *testing.T) {
	c := compile(t)
	for _, tt := range []struct {
		name, doc string
		want      []string
	}{
		{"nothing", `{}`, []string{`command: required property is missing`, `maxRunTime: required property is missing`}},
		{"no object", `[]`, []string{`payload: expected object, got array`}},
		{"null", `null`, []string{`payload: expected object, got null`}},
		{"a number at the root", `1e400`, []string{`payload: number is out of range`}},
		{
			"deep in lists", `{"command": [["ok", 1], "x"], "maxRunTime": 0}`,
			[]string{`command[0][1]: expected string, got number`, `command[1]: expected array, got string`, `maxRunTime: must be at least 1, got 0`},
		},
		{
			"a fraction", `{"command": [], "maxRunTime": 1.5}`,
			[]string{`command: must have at least 1 items, has 0`, `maxRunTime: expected integer, got number`},
		},
		{
			"too much", `{"command": [[], [], [], []], "maxRunTime": 1e300}`,
			[]string{`command: must have at most 3 items, has 4`, `maxRunTime: must be at most 86400, got 1e+300`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) { checkDoc(t, c, tt.doc, tt.want) })
	}
}

func checkDoc(t *testing.T, c payload.Checker, doc string, want []string) {
	t.Helper()
	vs, err := c.Check([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range vs {
		got = append(got, v.Path+": "+v.Message)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
}

func TestCheckRefusesWhatIsNoJSON(t *testing.T) {
	c := compile(t)
	for _, doc := range []string{``, `{`, `{} {}`, `{"a": 01}`, "\xff"} {
		if vs, err := c.Check([]byte(doc)); err == nil {
			t.Errorf("%q: violations %v, want an error", doc, vs)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct{ name, schema, want string }{
		{"what is no JSON", `{`, "parse JSON"},
		{"what is no schema", `{"type": "text"}`, "compile schema"},
		{"a pattern that is none", `{"pattern": "("}`, "compile schema"},
		{"a reference to a file", `{"$ref": "file:///etc/hostname"}`, "only references within it are followed"},
		{"a reference to the network", `{"$ref": "http://127.0.0.1:1/x.json"}`, "only references within it are followed"},
		{"a relative reference", `{"$ref": "other.json"}`, "only references within it are followed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := jsonschema.Compile([]byte(tt.schema))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Whatever the document, the answer is the same every time, on one line per
// violation.
func FuzzCheck(f *testing.F) {
	for _, doc := range []string{
		`{"command": [["true"]], "maxRunTime": 60}`, `{"env": {"A\n": 1}}`, `{"mounts": [{}, 1]}`,
		`{"codes": [1e999, 1e-999, {}, []]}`, `{"image": {"name": 3}}`, `[[[]]]`, `{"slug": "\ud800"}`,
		`{"artifacts": [{"expires": "x"}]}`,
	} {
		f.Add([]byte(doc))
	}
	c := compile(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		first, err := c.Check(doc)
		if err != nil {
			return
		}
		second, err := c.Check(doc)
		if diff := cmp.Diff(first, second); err != nil || diff != "" {
			t.Fatalf("second check: %v (-first +second):\n%s", err, diff)
		}
		for _, v := range first {
			if v.Path == "" || v.Message == "" || strings.ContainsAny(v.Path+v.Message, "\n\r\x1b") {
				t.Errorf("violation %+v is no line for a log", v)
			}
		}
	})
}
