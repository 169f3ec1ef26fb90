package command_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

type config struct {
	Name  string `mapstructure:"name" needs:"start" doc:"A name."`
	Token string `mapstructure:"token" secret:"true" doc:"A token."`
}

// execute runs a command line of an app with all the commands.
func execute(args ...string) (code int, out, err string) {
	var stdout, stderr strings.Builder
	s := command.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr}
	table := setting.Of[config]("APP_")
	load := func(file string, complete bool) (setting.Values, error) {
		need := ""
		if complete {
			need = "start"
		}
		return table.Load(file, []string{"APP_TOKEN=geheim"}, need)
	}
	fail := &cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error {
		return &command.Exit{Code: 2, Err: errors.New("first\nsecond")}
	}}
	quiet := &cobra.Command{Use: "quiet", RunE: func(*cobra.Command, []string) error { return &command.Exit{Code: 3} }}
	root := command.New("app", "Do things", "App does things.", fail, quiet,
		command.Config("app", table, load, s), command.Version("app", "v1.2.3", s))
	code = command.Execute(context.Background(), root, args, s)
	return code, stdout.String(), stderr.String()
}

func TestExecute(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/app.yml"
	if err := os.WriteFile(file, []byte("name: abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		title string
		args  string
		code  int
		out   string // part of what is printed
		err   string // all that is said
	}{
		{"nothing to do", "", 64, "", "app: expected a command: see app --help\n"},
		{"an unknown command", "prance", 64, "", `app: unknown command "prance" for "app": see app --help` + "\n"},
		{"a misspelt command", "config chekc", 64, "", `app: unknown command "chekc" for "app config": did you mean check?` + "\n"},
		{"an argument too many", "version now", 64, "", `app: unexpected argument "now": see app version --help` + "\n"},
		{"an unknown flag", "config show --colour", 64, "", "app: unknown flag: --colour: see app config show --help\n"},
		{"an error of several lines", "fail", 2, "", "app: first\napp: second\n"},
		{"an exit without words", "quiet", 3, "", ""},
		{"no command of config", "config", 64, "", "app: expected a command: see app config --help\n"},
		{"a configuration that lacks something", "config check", 64, "", "app: name: is missing: expected text, in the configuration file or in APP_NAME\n"},
		{"a configuration that is fine", "config check -c " + file, 0, "fine", ""},
		{"a configuration without its secrets", "config show -c " + file, 0, "name: abc # " + file + ":1\ntoken: (hidden) # APP_TOKEN\n", ""},
		{"the schema", "config schema", 0, `"title": "Configuration of app"`, ""},
		{"the version", "version", 0, "app v1.2.3\nrevision ", ""},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			code, out, err := execute(strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(out, tt.out) || err != tt.err {
				t.Errorf("exit code %d, want %d; out %q, want %q in it; err %q, want %q", code, tt.code, out, tt.out, err, tt.err)
			}
		})
	}
}

func TestLogHasTheFormatAndLevelThatWereAskedFor(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"text": "level=WARN msg=loud", "json": `"level":"WARN","msg":"loud"`, "journal": `<4>{"time"`} {
		var b strings.Builder
		log := command.NewLog(format, "warn", &b)
		log.Info("quiet")
		log.Warn("loud")
		if got := b.String(); !strings.Contains(got, want) || strings.Contains(got, "quiet") {
			t.Errorf("%s: got %s, want %s", format, got, want)
		}
	}
}
