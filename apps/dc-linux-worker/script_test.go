package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// The command lines in testdata/script, each in a directory of its own. Besides
// the usual ones there are the variables ROOT_URL and TOKEN, of a deployment,
// and the command "exits CODE COMMAND...", which checks the exit code and that
// there is no stack trace.
func TestScripts(t *testing.T) {
	dir, remove, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	server, shut, err := devqueue.Open(t.Context(), devqueue.Config{
		Dir:     filepath.Join(dir, "queue"),
		Clients: []devqueue.Client{{ClientID: "powerless", AccessToken: "powerless-token-000000", Scopes: []string{"queue:get-task:*"}}},
	}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		shut()
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// Tasks' users must be able to pass through it.
			temp, remove, err := workDir(filepath.Join(dir, filepath.Base(env.WorkDir)))
			if err != nil {
				return err
			}
			env.Defer(func() {
				left, err := os.ReadDir(temp)
				if len(left) > 0 {
					t.Errorf("%s leaves temporary files: %v", filepath.Base(env.WorkDir), left)
				}
				if err = errors.Join(err, remove()); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("TMPDIR", temp)
			env.Setenv("ROOT_URL", server.RootURL())
			env.Setenv("TOKEN", server.Credentials().AccessToken)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a command that must exit with a code other than 0.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if failed, ok := errors.AsType[*exec.ExitError](ts.Exec(args[1], args[2:]...)); ok {
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
}
