package setting

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoadFromHasAnOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yml")
	if err := os.WriteFile(file, []byte("name: file\ncolour: green\ninner: {count: 4, size: 1KiB}\nwords: [a]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := table().LoadFrom(Sources{
		File: file,
		Documents: []Document{
			{Name: "the pool", Content: map[string]any{"colour": "blue", "inner": map[string]any{"count": json.Number("5"), "share": 0.75}, "words": []any{"b", "c"}}},
			{Name: "a secret", Content: map[string]any{"inner": map[string]any{"count": 6}, "token": "geheim"}},
		},
		Environ: []string{"APP_INNER_SIZE=2KiB"},
	}, "work", map[string]string{"inner.patience": "5s"})
	if err != nil {
		t.Fatal(err)
	}
	want := Values{
		"name": {"file", file + ":1"}, "token": {"geheim", "a secret"}, "colour": {"blue", "the pool"}, "inner.count": {"6", "a secret"},
		"inner.share": {"0.75", "the pool"}, "inner.size": {"2KiB", "APP_INNER_SIZE"}, "inner.patience": {"5s", "default"},
		"always.on": {"true", "default"}, "words": {`["b","c"]`, "the pool"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestLoadFromSaysWhatIsWrongWhere(t *testing.T) {
	_, err := table().LoadFrom(Sources{
		Documents: []Document{
			{Name: "the pool", Content: map[string]any{"inner": map[string]any{"count": "5"}, "size": 3}},
			{Name: "a secret", Content: map[string]any{"token": "GEHEIM", "words": nil}},
		},
		Environ: []string{"APP_COLOUR=brown"},
	}, "work")
	want := []string{
		`the pool: inner.count: expected a whole number from 1 to 9, got the text "5"`,
		"the pool: size: unknown key; did you mean inner.size?",
		"a secret: token: expected text, got something else",
		"a secret: words: expected a list of texts such as abc, got nothing",
		`APP_COLOUR: colour: expected red, green or blue, got "brown"`,
		"name: is missing: expected text such as abc, in the configuration file or in APP_NAME",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestSomeAreNeededOnlyWithOthers(t *testing.T) {
	type pet struct {
		Kind  string `mapstructure:"kind" default:"cat" oneof:"cat dog fish" doc:"What it is."`
		Leash string `mapstructure:"leash" needs:"walks" when:"kind=dog,cat" doc:"Its leash."`
		Name  string `mapstructure:"name" needs:"walks" when:"kind=dog" doc:"Its name."`
	}
	pets := Of[pet]("")
	for kind, want := range map[string][]string{"": {"leash"}, "cat": {"leash"}, "dog": {"leash", "name"}, "fish": nil} {
		content := map[string]any{"kind": kind}
		if kind == "" {
			delete(content, "kind")
		}
		_, err := pets.LoadFrom(Sources{Documents: []Document{{Content: content}}}, "walks")
		problems, _ := errors.AsType[Problems](err)
		var got []string
		for _, p := range problems {
			got = append(got, p.Path)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("missing of a %q (-want +got):\n%s", kind, diff)
		}
	}
	for _, want := range []string{"required by walks if kind is dog or cat |", "required by walks if kind is dog |"} {
		if got := pets.Markdown(); !strings.Contains(got, want) {
			t.Errorf("the manual does not say %q:\n%s", want, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a condition about nothing is accepted")
		}
	}()
	type broken struct {
		Name string `mapstructure:"name" when:"colour=red"`
	}
	Of[broken]("")
}
