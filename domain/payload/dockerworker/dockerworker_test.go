package dockerworker_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/payload/dockerworker"
)

var update = flag.Bool("update", false, "write what is expected in place of comparing with it")

// lenient is a checker that finds nothing: the schema is an adapter's business
// to check against.
type lenient struct{}

func (lenient) Check([]byte) ([]payload.Violation, error) { return nil, nil }

func translator(tb testing.TB) payload.Translator {
	tb.Helper()
	translate, err := dockerworker.NewTranslator(func(schema []byte) (payload.Checker, error) {
		if !json.Valid(schema) {
			tb.Error("the schema is not JSON")
		}
		return lenient{}, nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return translate
}

// The files testdata/*.json are payloads, in the manner of public projects'
// tasks, and *.golden what becomes of them.
func TestTranslation(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no payloads", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, violations, err := translator(t)(raw)
			if err != nil || len(violations) > 0 {
				t.Fatal(violations, err)
			}
			if got.Dialect != payload.DockerWorker {
				t.Errorf("it is taken for a payload of %s", got.Dialect)
			}
			var indented bytes.Buffer
			if err := json.Indent(&indented, got.Payload, "", "  "); err != nil {
				t.Fatal(err)
			}
			indented.WriteByte('\n')
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, indented.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), indented.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, _, err := translator(t)(got.Payload)
			if err != nil || again.Dialect != payload.GenericWorker || !bytes.Equal(again.Payload, got.Payload) {
				t.Errorf("translated again, it changes: %s %s, %v", again.Dialect, again.Payload, err)
			}
		})
	}
}

func TestPayloadsAreToldApart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		title, raw string
		want       payload.Dialect
	}{
		{"a flat command", `{"image": "a", "command": ["true"]}`, payload.DockerWorker},
		{"a flat command without an image", `{"command": ["true"]}`, payload.DockerWorker},
		{"a list of commands", `{"image": "a", "command": [["true"]]}`, payload.GenericWorker},
		{"a list of commands, and a log", `{"image": "a", "command": [["true"]], "log": "x"}`, payload.GenericWorker},
		{"an image alone", `{"image": "a", "maxRunTime": 1}`, payload.DockerWorker},
		{"an image and an empty command", `{"image": "a", "command": []}`, payload.DockerWorker},
		{"an image and a terminal", `{"image": "a", "tty": true}`, payload.GenericWorker},
		{"artifacts by name", `{"image": "a", "artifacts": {}}`, payload.DockerWorker},
		{"artifacts in a list", `{"image": "a", "artifacts": []}`, payload.GenericWorker},
		{"no image", `{"maxRunTime": 1}`, payload.GenericWorker},
		{"no object", `[1]`, payload.GenericWorker},
		{"no JSON", `{`, payload.GenericWorker},
	} {
		got, _, err := translator(t)([]byte(tt.raw))
		if err != nil {
			t.Errorf("%s: %v", tt.title, err)
		}
		if got.Dialect != tt.want {
			t.Errorf("%s: taken for a payload of %s, want %s", tt.title, got.Dialect, tt.want)
		}
	}
}

func TestFeaturesThatAreNoMore(t *testing.T) {
	t.Parallel()
	_, violations, err := translator(t)([]byte(`{"image": "a", "features": {"relengAPIProxy": true, "dockerSave": true, "dind": false}}`))
	want := []payload.Violation{
		{Path: "features.dockerSave", Message: "the feature dockerSave of docker-worker is not available"},
		{Path: "features.relengAPIProxy", Message: "the feature relengAPIProxy of docker-worker is not available"},
	}
	if diff := cmp.Diff(want, violations); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func FuzzTranslate(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"command": [null]}`))
	translate := translator(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _, err := translate(raw)
		if err == nil && got.Dialect == payload.DockerWorker && !json.Valid(got.Payload) {
			t.Errorf("not JSON: %s", got.Payload)
		}
	})
}
