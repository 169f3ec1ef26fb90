package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// The rows of the table of resolutions that every worker of Taskcluster keeps to.
func TestResolution(t *testing.T) {
	b := newBench(t, `worker: {capacity: 8, maxTaskRunTime: 2m, pollInterval: 100ms}`, devqueue.Config{
		Roles: map[string][]string{
			"gamers":      {"assume:gamers-of-" + localPool},
			"gamers-of-*": {"generic-worker:os-group:<..>/games"},
		},
	})
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	b.tryAll(t, []scenario{
		{
			name:  "all commands exit 0, artifacts fine: completed",
			task:  "command: [[/bin/echo, one], [/bin/sh, -c, 'echo two >&2; echo three > f']]\nartifacts: [{type: file, path: f, name: public/f}]",
			state: "completed", reason: "completed",
			log:       []string{"Executing command 0", "one\n", "Executing command 1", "two\n", "Task Resolution: completed"},
			artifacts: map[string]*stored{"public/f": {storage: "s3", content: "three\n"}},
		},
		{
			name:  "a command exits non-zero, later commands are skipped: failed",
			task:  "command: [[/bin/true], [/bin/sh, -c, 'exit 7'], [/bin/echo, unreachable]]",
			state: "failed", reason: "failed",
			log:      []string{"Executing command 1", "Exit Code: 7", "Result: FAILED", "Task Resolution: failed"},
			notInLog: []string{"Executing command 2"},
		},
		{
			name:  "a command cannot be found: failed",
			task:  "command: [[/no/such/program], [/bin/echo, unreachable]]",
			state: "failed", reason: "failed",
			log:      []string{"/no/such/program"},
			notInLog: []string{"Executing command 1"},
		},
		{
			name:  "a command cannot be executed: failed",
			task:  "command: [[/etc/hostname]]",
			state: "failed", reason: "failed",
			log: []string{"/etc/hostname"},
		},
		{
			name:  "exit code in onExitStatus.retry, no retries left: intermittent-task",
			task:  "command: [[/bin/sh, -c, 'exit 9']]\nonExitStatus: {retry: [8, 9]}",
			state: "exception", reason: "intermittent-task",
			log: []string{"Exit Code: 9", "9 is listed in payload.onExitStatus.retry"},
		},
		{
			name:  "exit code in onExitStatus.retry, retries left: another run",
			task:  "retries: 5\npayload: {maxRunTime: 60, command: [[/bin/sh, -c, 'test $RUN_ID = 2 || exit 9']], onExitStatus: {retry: [9]}}",
			state: "completed", reason: "completed", runs: 3,
			log: []string{"Run ID: 2"},
		},
		{
			name:  "exit code in onExitStatus.retry, retries used up: intermittent-task",
			task:  "retries: 1\npayload: {maxRunTime: 60, command: [[/bin/sh, -c, 'exit 9']], onExitStatus: {retry: [9]}}",
			state: "exception", reason: "intermittent-task", runs: 2,
			log: []string{"Run ID: 1"},
		},
		{
			name:  "exit code not in onExitStatus.retry: failed",
			task:  "command: [[/bin/sh, -c, 'exit 9']]\nonExitStatus: {retry: [8]}",
			state: "failed", reason: "failed",
		},
		{
			name:  "exit code in onExitStatus.purgeCaches: as otherwise",
			task:  "command: [[/bin/sh, -c, 'exit 9']]\nonExitStatus: {purgeCaches: [0, 9]}",
			state: "failed", reason: "failed",
		},
		{
			name:  "maxRunTime exceeded: failed, and the log says so",
			task:  "maxRunTime: 1\ncommand: [[/bin/sh, -c, 'echo before; sleep 3600'], [/bin/echo, unreachable]]\nartifacts: [{type: file, path: /etc/hostname, name: public/a}]",
			state: "failed", reason: "failed",
			log:       []string{"before", "max run time exceeded", "Exit Code: -1 (killed)", "Result: ABORTED"},
			notInLog:  []string{"Executing command 1"},
			artifacts: map[string]*stored{"public/a": {storage: "s3"}},
		},
		{
			name:  "artifact missing and not optional: failed, after an error artifact",
			task:  "command: [[/bin/true]]\nartifacts: [{type: file, path: nope, name: public/a}, {type: directory, path: nope, name: public/d}, {type: file, path: /etc/hostname, name: public/b}]",
			state: "failed", reason: "failed",
			log: []string{"file-missing-on-worker"},
			artifacts: map[string]*stored{
				"public/a": {storage: "error"},
				"public/d": {storage: "error"},
				"public/b": {storage: "s3"},
			},
		},
		{
			name:  "artifact of the wrong type: failed, after an error artifact",
			task:  "command: [[/bin/sh, -c, 'mkdir d; touch f']]\nartifacts: [{type: file, path: d, name: public/a}, {type: directory, path: f, name: public/b}]",
			state: "failed", reason: "failed",
			log:       []string{"invalid-resource-on-worker"},
			artifacts: map[string]*stored{"public/a": {storage: "error"}, "public/b": {storage: "error"}},
		},
		{
			name:  "artifact unreadable: failed, after an error artifact",
			task:  "command: [[/bin/true]]\nartifacts: [{type: file, path: /etc/shadow, name: public/a}]",
			state: "failed", reason: "failed",
			log:       []string{"may not read it"},
			artifacts: map[string]*stored{"public/a": {storage: "error"}},
		},
		{
			name:  "optional artifact missing: completed, with the error artifact",
			task:  "command: [[/bin/true]]\nartifacts: [{type: file, path: nope, name: public/a, optional: true}]",
			state: "completed", reason: "completed",
			log:       []string{"file-missing-on-worker"},
			artifacts: map[string]*stored{"public/a": {storage: "error"}},
		},
		{
			name:  "two different contents under one artifact name: malformed-payload",
			task:  "command: [[/bin/sh, -c, 'echo 1 > a; echo 2 > b']]\nartifacts: [{type: file, path: a, name: public/a}, {type: file, path: b, name: public/a}]",
			state: "exception", reason: "malformed-payload",
			log: []string{"public/a"},
		},
		{
			name:  "two different contents under one artifact name, one of them in a directory: malformed-payload",
			task:  "command: [[/bin/sh, -c, 'mkdir d; echo 1 > d/a; echo 2 > b']]\nartifacts: [{type: directory, path: d, name: public}, {type: file, path: b, name: public/a}]",
			state: "exception", reason: "malformed-payload",
			log: []string{"public/a"},
		},
		{
			name:  "an identical entry twice: malformed-payload",
			task:  "command: [[/bin/touch, a]]\nartifacts: [{type: file, path: a, name: public/a}, {type: file, path: a, name: public/a}]",
			state: "exception", reason: "malformed-payload",
			log: []string{"public/a"},
		},
		{
			name:  "a file artifact also inside a directory artifact: completed",
			task:  "command: [[/bin/sh, -c, 'mkdir d; echo 1 > d/a']]\nartifacts: [{type: directory, path: d, name: public/d}, {type: file, path: d/a, name: public/d/a}]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{"public/d/a": {storage: "s3", content: "1\n"}},
		},
		{
			name:  "schema violation: malformed-payload, the log lists each violation and then the whole schema",
			task:  "command: /bin/true\nmaxRunTime: soon\nnonsense: 1\nfeatures: {teleport: true}\nartifacts: [{type: file}]",
			state: "exception", reason: "malformed-payload",
			log: []string{"artifacts[0]", "command: ", "features", "maxRunTime: ", "nonsense", `"$schema"`, `"title": "Task payload"`},
		},
		{
			name:  "artifact.expires before the deadline: malformed-payload",
			task:  "payload: {maxRunTime: 60, command: [[/bin/true]], artifacts: [{type: file, path: a, name: public/a, expires: " + soon + "}]}",
			state: "exception", reason: "malformed-payload",
			log: []string{"expires before task deadline"},
		},
		{
			name:  "artifact.expires after task.expires: malformed-payload",
			task:  fmt.Sprintf("expires: %s\npayload: {maxRunTime: 60, command: [[/bin/true]], artifacts: [{type: file, path: a, name: public/a, expires: 2999-01-01T00:00:00Z}]}", time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339)),
			state: "exception", reason: "malformed-payload",
			log: []string{"expires after task expiry"},
		},
		{
			name:  "maxRunTime above the worker's maxTaskRunTime: malformed-payload",
			task:  "maxRunTime: 121\ncommand: [[/bin/true]]",
			state: "exception", reason: "malformed-payload",
			log: []string{"121", "120"},
		},
		{
			name:  "a feature's scopes not satisfied: malformed-payload listing the scopes",
			task:  "scopes: [generic-worker:os-group:other/pool/games]\npayload: {maxRunTime: 60, command: [[/bin/true]], osGroups: [games]}",
			state: "exception", reason: "malformed-payload",
			log: []string{"generic-worker:os-group:" + localPool + "/games"},
		},
		{
			name:  "a feature's scopes satisfied: completed",
			task:  "scopes: ['generic-worker:os-group:*']\npayload: {maxRunTime: 60, command: [[/usr/bin/id, -Gn]], osGroups: [games]}",
			state: "completed", reason: "completed",
			log: []string{"games\n"},
		},
		{
			name:  "a feature's scopes satisfied by a role, expanded through auth: completed",
			task:  "scopes: ['assume:gamers']\npayload: {maxRunTime: 60, command: [[/usr/bin/id, -Gn]], osGroups: [games]}",
			state: "completed", reason: "completed",
			log: []string{"games\n"},
		},
		{
			name:  "a role that lacks the feature's scopes: malformed-payload listing the scopes",
			task:  "scopes: ['assume:others']\npayload: {maxRunTime: 60, command: [[/bin/true]], osGroups: [games]}",
			state: "exception", reason: "malformed-payload",
			log: []string{"generic-worker:os-group:" + localPool + "/games"},
		},
		{
			name:  "the first error wins, but every artifact that exists is uploaded",
			task:  "command: [[/bin/sh, -c, 'echo 1 > a; exit 3']]\nartifacts: [{type: file, path: nope, name: public/nope}, {type: file, path: a, name: public/a}]",
			state: "failed", reason: "failed",
			log:       []string{"Exit Code: 3"},
			artifacts: map[string]*stored{"public/a": {storage: "s3", content: "1\n"}, "public/nope": {storage: "error"}},
		},
		{
			name:  "artifacts of a run that is tried again are saved",
			task:  "command: [[/bin/sh, -c, 'echo 1 > a; exit 3']]\nonExitStatus: {retry: [3]}\nartifacts: [{type: file, path: a, name: public/a}]",
			state: "exception", reason: "intermittent-task",
			artifacts: map[string]*stored{"public/a": {storage: "s3", content: "1\n"}},
		},
		{
			name:  "a command killed by a signal: failed, and the log says by what",
			task:  "command: [[/bin/sh, -c, 'kill -9 $$']]",
			state: "failed", reason: "failed",
			log: []string{"Exit Code: -1 (killed)", "Result: FAILED"},
		},
		{
			name:  "what a command leaves running ends with it",
			task:  "command: [[/bin/sh, -c, 'setsid sleep 3601.25 & echo started']]",
			state: "completed", reason: "completed",
			check: func(t *testing.T, _ *bench, _ task.RunID, _ string) {
				t.Helper()
				expectNoProcess(t, "3601.25")
			},
		},
	})
}

func TestDisabledFeature(t *testing.T) {
	b := newBench(t, "worker: {pool: proj-test/plain, capacity: 3}\nexitStatus: {enabled: false}\nartifacts: {enabled: false}", devqueue.Config{})
	b.tryAll(t, []scenario{
		{
			name:  "feature requested but disabled on this pool: malformed-payload naming feature and pool",
			task:  "command: [[/bin/true]]\nonExitStatus: {retry: [3]}",
			state: "exception", reason: "malformed-payload",
			log: []string{"exitStatus", "disabled", "proj-test/plain", "payload.onExitStatus"},
		},
		{
			name:  "artifacts requested but disabled: malformed-payload",
			task:  "command: [[/bin/true]]\nartifacts: [{type: file, path: a, name: public/a}]",
			state: "exception", reason: "malformed-payload",
			log: []string{"artifacts", "disabled", "proj-test/plain"},
		},
		{
			name:  "not requested: completed",
			task:  "command: [[/bin/true]]",
			state: "completed", reason: "completed",
		},
	})
}

func TestLimits(t *testing.T) {
	b := newBench(t, "worker: {capacity: 2}\nnative: {limits: {memory: 64MiB, pids: 50}}", devqueue.Config{})
	b.tryAll(t, []scenario{
		{
			name:  "out of memory: failed, and the log says so",
			task:  "command: [[/bin/bash, -c, 'set -o pipefail; head -c 300000000 /dev/zero | tail -c 290000000']]",
			state: "failed", reason: "failed",
			log: []string{"memory"},
		},
		{
			name:  "a fork bomb hurts nobody else: failed",
			task:  "maxRunTime: 5\ncommand: [[/bin/bash, -c, 'for i in $(seq 200); do sleep 100 & done; jobs | wc -l; exit 1']]",
			state: "failed", reason: "failed",
		},
	})
}
