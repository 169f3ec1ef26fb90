package setting

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type testConfig struct {
	Name   string  `mapstructure:"name" needs:"work" pattern:"^[a-z]+$" example:"abc" doc:"A name."`
	Token  string  `mapstructure:"token" env:"TOKEN" needs:"work" secret:"true" pattern:"^[a-z]+$" doc:"A token."`
	Colour string  `mapstructure:"colour" default:"red" oneof:"red green blue" doc:"A colour."`
	Inner  inner   `mapstructure:"inner"`
	Always limited `mapstructure:"always"`
	lists  `mapstructure:",squash"`
}

type lists struct {
	Words []string `mapstructure:"words" pattern:"^[a-z]+$" example:"abc" doc:"Words."`
	Hosts []host   `mapstructure:"hosts" doc:"Hosts."`
}

type host struct {
	Name  string `mapstructure:"name" needs:"entry" doc:"Its name."`
	Token string `mapstructure:"token" secret:"true" doc:"Its token."`
	Port  int    `mapstructure:"port" max:"65535" doc:"Its port."`
}

type inner struct {
	Count    int           `mapstructure:"count" default:"3" min:"1" max:"9" doc:"How many."`
	Share    float64       `mapstructure:"share" min:"0.5" computed:"half" doc:"A share."`
	Patience time.Duration `mapstructure:"patience" default:"1m" min:"1s" max:"1h" doc:"How long."`
	Size     Bytes         `mapstructure:"size" min:"1KiB" doc:"How big."`
}

type limited struct {
	On bool `mapstructure:"on" default:"true" oneof:"true" doc:"Always on."`
}

func table() *Table { return Of[testConfig]("APP_") }

func TestReadFile(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		values        Values
		problems      []string
	}{
		{name: "nothing", content: "", values: Values{}},
		{name: "only a comment", content: "# c\n", values: Values{}},
		{name: "an empty section", content: "inner:\n", values: Values{}},
		{
			name:    "all kinds",
			content: "name: abc\ncolour: green\ninner:\n  count: 4\n  share: 1\n  patience: 90s\n  size: 4096\nalways: {on: true}\n",
			values: Values{
				"name": {"abc", "f:1"}, "colour": {"green", "f:2"}, "inner.count": {"4", "f:4"}, "inner.share": {"1", "f:5"},
				"inner.patience": {"90s", "f:6"}, "inner.size": {"4096", "f:7"}, "always.on": {"true", "f:8"},
			},
		},
		{name: "an alias", content: "name: &a abc\ncolour: *a\n", values: Values{"name": {"abc", "f:1"}}, problems: []string{`f:2: colour: expected red, green or blue, got "abc"`}},
		{name: "a key of another section", content: "count: 3\n", values: Values{}, problems: []string{"f:1: count: unknown key; did you mean inner.count?"}},
		{name: "a key in another spelling", content: "inner: {Count: 3}\n", values: Values{}, problems: []string{"f:1: inner.Count: unknown key; did you mean inner.count?"}},
		{name: "a key that is like none", content: "inner: {elephants: 3}\n", values: Values{}, problems: []string{"f:1: inner.elephants: unknown key; known here: count, share, patience, size"}},
		{name: "keys that are no text", content: "1: 2\n? [a]\n: 3\n", values: Values{}, problems: []string{
			"f:1: 1: unknown key; known here: name, token, colour, inner, always, words, hosts",
			"f:2: unknown key; known here: name, token, colour, inner, always, words, hosts",
		}},
		{name: "merged keys", content: "<<: {name: abc}\n", values: Values{}, problems: []string{"f:1: <<: unknown key; known here: name, token, colour, inner, always, words, hosts"}},
		{name: "a section that is a value", content: "inner: 3\n", values: Values{}, problems: []string{"f:1: inner: expected keys and values (count, share, patience, size), got the number"}},
		{name: "a file that is a list", content: "- 3\n", values: Values{}, problems: []string{"f:1: expected keys and values (name, token, colour, inner, always, words, hosts), got a list"}},
		{name: "a value that is a section", content: "name: {a: b}\n", values: Values{}, problems: []string{"f:1: name: expected text such as abc, got keys and values"}},
		{name: "no value", content: "name:\n", values: Values{}, problems: []string{"f:1: name: expected text such as abc, got nothing"}},
		{name: "a number for text", content: "name: 3\n", values: Values{}, problems: []string{`f:1: name: expected text such as abc, got the number "3"`}},
		{name: "text for a number", content: "inner: {count: '3'}\n", values: Values{}, problems: []string{`f:1: inner.count: expected a whole number from 1 to 9, got the text "3"`}},
		{name: "a flag for a number", content: "inner: {count: true}\n", values: Values{}, problems: []string{`f:1: inner.count: expected a whole number from 1 to 9, got the flag "true"`}},
		{name: "too small, too big", content: "inner: {count: 0, patience: 2h, size: 1023B, share: 0.1}\n", values: Values{}, problems: []string{
			`f:1: inner.count: expected a whole number from 1 to 9, got "0"`,
			`f:1: inner.patience: expected a duration such as 90s or 24h from 1s to 1h, got "2h"`,
			`f:1: inner.size: expected a size such as 512MiB or 4GiB, at least 1KiB, got "1023B"`,
			`f:1: inner.share: expected a number, at least 0.5, got "0.1"`,
		}},
		{name: "no number", content: "inner: {share: .nan}\n", values: Values{}, problems: []string{`f:1: inner.share: expected a number, at least 0.5, got ".nan"`}},
		{name: "a flag that cannot be off", content: "always: {on: false}\n", values: Values{}, problems: []string{`f:1: always.on: expected true, got "false"`}},
		{name: "a secret", content: "token: GEHEIM\n", values: Values{}, problems: []string{"f:1: token: expected text, got something else"}},
		{name: "twice", content: "name: abc\nname: abd\n", values: Values{"name": {"abc", "f:1"}}, problems: []string{"f:2: name: is set twice, first in line 1"}},
		{name: "two documents", content: "name: abc\n---\nname: abd\n", values: Values{"name": {"abc", "f:1"}}, problems: []string{"f:2: there is a second document: one is enough"}},
		{
			name:    "lists",
			content: "words: [abc, def]\nhosts:\n- name: a\n  port: 80\n- {name: b, token: GEHEIM}\n",
			values:  Values{"words": {`["abc","def"]`, "f:1"}, "hosts": {`[{"name":"a","port":"80"},{"name":"b","token":"GEHEIM"}]`, "f:3"}},
		},
		{name: "empty lists", content: "words: []\nhosts: []\n", values: Values{"words": {"[]", "f:1"}, "hosts": {"[]", "f:2"}}},
		{name: "no lists", content: "words: abc\nhosts: {name: a}\n", values: Values{}, problems: []string{
			"f:1: words: expected a list of texts such as abc, got the text",
			"f:2: hosts: expected a list of keys and values (name, token, port), got keys and values",
		}},
		{name: "lists of something else", content: "words: [abc, 3, DEF]\nhosts:\n- port: 70000\n- a\n- {name: b, nane: c}\n", values: Values{}, problems: []string{
			"f:1: words[1]: expected text such as abc, got the number",
			`f:1: words[2]: expected text such as abc, got "DEF"`,
			`f:3: hosts[0].port: expected a whole number, got "70000"`,
			"f:3: hosts[0].name: is missing",
			"f:4: hosts[1]: expected keys and values (name, token, port), got the text",
			"f:4: hosts[1].name: is missing",
			"f:5: hosts[2].nane: unknown key; did you mean name?",
		}},
		{name: "no YAML", content: "name: 'abc\n", values: nil, problems: []string{"f:2: is not valid YAML: found unexpected end of stream"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values, problems := table().ReadFile("f", []byte(tt.content))
			if diff := cmp.Diff(tt.values, values); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(strings.Join(tt.problems, "\n"), problems.Error()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadEnv(t *testing.T) {
	values, problems := table().ReadEnv([]string{
		"APP_NAME=abc", "TOKEN=geheim", "APP_INNER_COUNT=10", "APP_INNER_SIZE=1GB", "APP_COLOUR=", "APP_TOKEN=x",
		"APP_INNER_CUONT=1", "APP_", "OTHER=1", "TOKENS=1", `APP_WORDS=["a"]`, `APP_HOSTS=[{"port": 1}]`,
	})
	want := Values{"words": {`["a"]`, "APP_WORDS"}, "name": {"abc", "APP_NAME"}, "token": {"geheim", "TOKEN"}, "inner.size": {"1GB", "APP_INNER_SIZE"}}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	wantProblems := strings.Join([]string{
		"APP_: unknown variable",
		"APP_HOSTS: hosts[0].name: is missing",
		`APP_INNER_COUNT: inner.count: expected a whole number from 1 to 9, got "10"`,
		"APP_INNER_CUONT: unknown variable; did you mean APP_INNER_COUNT?",
		"APP_TOKEN: unknown variable; did you mean TOKEN?",
	}, "\n")
	if diff := cmp.Diff(wantProblems, problems.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestListsAreShownWithoutSecrets(t *testing.T) {
	got := table().YAML(Values{
		"words": {`["abc"]`, "f:1"},
		"hosts": {`[{"name":"b","token":"GEHEIM"}]`, "f:3"},
	})
	want := "words: [\"abc\"] # f:1\nhosts: [{\"name\":\"b\",\"token\":\"(hidden)\"}] # f:3\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMissing(t *testing.T) {
	if got := table().Missing("", nil); len(got) > 0 {
		t.Errorf("something is missing for nothing: %v", got)
	}
	found := Problems{{Path: "name"}}
	got := table().Missing("work", found, Values{}).Error()
	if want := "token: is missing: expected text, in the configuration file or in TOKEN"; got != want {
		t.Errorf("missing: %s, want %s", got, want)
	}
	if got := table().Missing("work", nil, Values{"name": {"abc", "f:1"}}, Values{"token": {"abc", "TOKEN"}}); len(got) > 0 {
		t.Errorf("something is missing that is set: %v", got)
	}
}

func TestParseBytes(t *testing.T) {
	for value, want := range map[string]Bytes{
		"0": 0, "1": 1, "10B": 10, "1kB": 1000, "1KiB": 1024, "1.5MiB": 3 << 19, "2 GiB": 2 << 30, "3TB": 3e12, "1TiB": 1 << 40,
	} {
		if got, err := ParseBytes(value); got != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", value, got, err, want)
		}
	}
	for _, value := range []string{"", "B", "GiB", "-1", "1e3", "1 2", "0x10", "1.2.3", "inf", "NaN", "9999999TiB", "1K", "1gib"} {
		if got, err := ParseBytes(value); err == nil {
			t.Errorf("%q is %d, want an error", value, got)
		}
	}
}

func FuzzReadFile(f *testing.F) {
	f.Add([]byte("name: abc\ninner: {count: 3}"))
	f.Add([]byte("a: &a {b: *a}"))
	f.Add([]byte("inner: &a\n  count: *a"))
	f.Add([]byte("? {a: b}\n: c\n---\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		values, problems := table().ReadFile("f", content)
		if values == nil && len(problems) == 0 {
			t.Error("there is neither a value nor a problem")
		}
		for path, v := range values {
			if err := table().find(path).Check(v.Text); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}
