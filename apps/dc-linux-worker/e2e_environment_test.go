package main

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// What a task finds in its environment: all of it.
func TestEnvironment(t *testing.T) {
	t.Setenv("WORKER_SECRET", "not for tasks")
	b := newBench(t, `worker: {capacity: 4, instanceType: m5.large, location: '{"cloud":"aws"}', publicIP: 203.0.113.7}`, devqueue.Config{})
	group := "fN1SbArXTPSVFNUvaOlinQ"
	b.tryAll(t, []scenario{
		{
			name:  "the worker's variables, and nothing of its own environment",
			task:  "taskGroupId: " + group + "\npayload: {maxRunTime: 60, command: [[/usr/bin/env, '-0']]}",
			state: "completed", reason: "completed",
			check: func(t *testing.T, b *bench, id task.RunID, log string) {
				t.Helper()
				got := variables(log)
				home := got["HOME"]
				if rel, err := filepath.Rel(b.dir, home); err != nil || !filepath.IsLocal(rel) {
					t.Errorf("HOME is %s, want a directory below %s", home, b.dir)
				}
				want := map[string]string{
					"TASK_ID": string(id.Task), "RUN_ID": "0", "TASK_GROUP_ID": group, "TASK_WORKDIR": home,
					"TASKCLUSTER_ROOT_URL":        b.server.RootURL(),
					"TASKCLUSTER_WORKER_POOL":     localPool,
					"TASKCLUSTER_WORKER_GROUP":    localGroup,
					"TASKCLUSTER_WORKER_TYPE":     "dc-linux-worker",
					"TASKCLUSTER_INSTANCE_TYPE":   "m5.large",
					"TASKCLUSTER_WORKER_LOCATION": `{"cloud":"aws"}`,
					"TASKCLUSTER_PUBLIC_IP":       "203.0.113.7",
					"HOME":                        home, "USER": filepath.Base(home),
					"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				}
				if rel, err := filepath.Rel(b.dir, got[engine.InterruptionVariable]); err != nil || !filepath.IsLocal(rel) {
					t.Errorf("%s is %s, want a file below %s", engine.InterruptionVariable, got[engine.InterruptionVariable], b.dir)
				}
				delete(got, engine.InterruptionVariable)
				// Engines may add what shells and libraries look for.
				maps.DeleteFunc(got, func(name, _ string) bool { return name == "LOGNAME" || name == "SHELL" || name == "TMPDIR" })
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("environment (-want +got):\n%s", diff)
				}
			},
		},
		{
			name:  "payload.env adds variables, and overrides HOME, PATH and USER but not the others",
			task:  "env: {HOME: /h, PATH: /bin, USER: u, MINE: 'a b', TASK_ID: forged, RUN_ID: '9', TASKCLUSTER_ROOT_URL: forged, TASK_WORKDIR: forged}\ncommand: [[/usr/bin/env, '-0']]",
			state: "completed", reason: "completed",
			check: func(t *testing.T, b *bench, id task.RunID, log string) {
				t.Helper()
				got := variables(log)
				want := map[string]string{
					"HOME": "/h", "PATH": "/bin", "USER": "u", "MINE": "a b",
					"TASK_ID": string(id.Task), "RUN_ID": "0", "TASKCLUSTER_ROOT_URL": b.server.RootURL(),
				}
				for name, value := range want {
					if got[name] != value {
						t.Errorf("%s is %q, want %q", name, got[name], value)
					}
				}
				if got["TASK_WORKDIR"] == "forged" {
					t.Error("TASK_WORKDIR is the payload's")
				}
			},
		},
		{
			name:  "a task starts in its working directory, which is its own",
			task:  "command: [[/bin/sh, -c, 'test \"$PWD\" = \"$TASK_WORKDIR\" && test -O . && touch mine && ls -A']]",
			state: "completed", reason: "completed",
			log: []string{"\nmine\n"},
		},
		{
			name:  "a task sees no process but its own",
			task:  "command: [[/bin/sh, -c, 'ls -d /proc/[0-9]* | wc -l; grep -l sleep /proc/[0-9]*/comm; true']]",
			state: "completed", reason: "completed",
			notInLog: []string{"/comm\n"},
		},
	})
}

// variables returns what "env -0" has written to a log.
func variables(log string) map[string]string {
	v := map[string]string{}
	_, output, _ := strings.Cut(log, `["/usr/bin/env","-0"]`+"\n")
	for pair := range strings.SplitSeq(output, "\x00") {
		if name, value, ok := strings.Cut(pair, "="); ok && !strings.Contains(name, "\n") {
			v[name] = value
		}
	}
	return v
}
