package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

const (
	liveLog    = "public/logs/live.log"
	backingLog = "public/logs/live_backing.log"
	logType    = "text/plain; charset=utf-8"
)

// What a task's log looks like and under which names it is published.
func TestTaskLog(t *testing.T) {
	b := newBench(t, `worker: {capacity: 8, instanceType: m5.large, id: worker-7}`, devqueue.Config{})
	b.tryAll(t, []scenario{
		{
			name:  "head, command, tail",
			task:  "command: [[/bin/echo, hello], [/bin/false]]",
			state: "failed", reason: "failed",
			check: func(t *testing.T, _ *bench, id task.RunID, log string) {
				t.Helper()
				if diff := cmp.Diff(wantLog(id), normalLog(log)); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			},
		},
		{
			name:  "the backing log is gzipped text, the live log leads to it",
			task:  "command: [[/bin/true]]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{
				backingLog: {storage: "s3", contentType: logType, encoding: "gzip"},
				liveLog:    {storage: "link", contentType: logType},
			},
			check: func(t *testing.T, b *bench, id task.RunID, log string) {
				t.Helper()
				if live, _ := b.artifact(t, id, liveLog); live.content != log {
					t.Errorf("live log is %q, want %q", live.content, log)
				}
			},
		},
		{
			name:  "logs.live and logs.backing rename the logs",
			task:  "command: [[/bin/echo, hello]]\nlogs: {live: public/my.log, backing: public/my_backing.log}",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{
				"public/my_backing.log": {storage: "s3", contentType: logType, encoding: "gzip"},
				"public/my.log":         {storage: "link"},
				backingLog:              nil,
				liveLog:                 nil,
			},
		},
		{
			name:  "features.liveLog false leaves only the backing log",
			task:  "command: [[/bin/true]]\nfeatures: {liveLog: false}",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{backingLog: {storage: "s3"}, liveLog: nil},
		},
		{
			name:  "a malformed payload is told in the log",
			task:  "command: []",
			state: "exception", reason: "malformed-payload",
			log:       []string{"[taskcluster:error] command", "Task Resolution: exception (malformed-payload)"},
			artifacts: map[string]*stored{backingLog: {storage: "s3"}, liveLog: {storage: "link"}},
		},
		{
			name:  "standard output and standard error are both there, to the last byte",
			task:  "command: [[/bin/sh, -c, 'echo out; echo err >&2; printf last']]",
			state: "completed", reason: "completed",
			log: []string{"out\nerr\nlast\n[taskcluster "},
		},
		{
			name:  "nothing of a long log is lost",
			task:  "command: [[/bin/sh, -c, 'seq 200000; exit 1']]",
			state: "failed", reason: "failed",
			log: []string{"\n1\n2\n", "\n99999\n100000\n", "\n199999\n200000\n[taskcluster ", "=== Task Finished ==="},
		},
		{
			name:  "a task cannot have the worker's lines end in its own",
			task:  "command: [[/usr/bin/printf, 'no end of line']]",
			state: "completed", reason: "completed",
			log: []string{"no end of line\n[taskcluster "},
		},
		{
			name:  "names of the logs always win over a task's artifacts",
			task:  "command: [[/bin/touch, a]]\nartifacts: [{type: file, path: a, name: " + backingLog + "}, {type: file, path: a, name: " + liveLog + "}]",
			state: "completed", reason: "completed",
			log:       []string{"the worker itself publishes an artifact of that name"},
			artifacts: map[string]*stored{backingLog: {storage: "s3", contentType: logType, encoding: "gzip"}, liveLog: {storage: "link"}},
		},
	})
}

// normalLog replaces what differs from run to run.
func normalLog(log string) string {
	for _, r := range []struct{ pattern, with string }{
		{`\[taskcluster \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] `, "[taskcluster TIME] "},
		{`(User Time|Kernel Time|Wall Time|Task Duration): [0-9.a-zµ]+`, "$1: DURATION"},
		{`Peak Memory: \d+ KiB`, "Peak Memory: MEMORY"},
		{`Worker Version: \S+`, "Worker Version: VERSION"},
	} {
		log = regexp.MustCompile(r.pattern).ReplaceAllString(log, r.with)
	}
	return log
}

func wantLog(id task.RunID) string {
	return strings.ReplaceAll(`[taskcluster TIME] Worker Pool: local/dc-linux-worker
[taskcluster TIME] Worker Group: local
[taskcluster TIME] Worker ID: worker-7
[taskcluster TIME] Worker Version: VERSION
[taskcluster TIME] Instance Type: m5.large
[taskcluster TIME] Task ID: TASK
[taskcluster TIME] Run ID: 0
[taskcluster TIME] === Task Starting ===
[taskcluster TIME] Executing command 0: ["/bin/echo","hello"]
hello
[taskcluster TIME]    Exit Code: 0
[taskcluster TIME]    User Time: DURATION
[taskcluster TIME]  Kernel Time: DURATION
[taskcluster TIME]    Wall Time: DURATION
[taskcluster TIME]  Peak Memory: MEMORY
[taskcluster TIME]       Result: SUCCEEDED
[taskcluster TIME] Executing command 1: ["/bin/false"]
[taskcluster TIME]    Exit Code: 1
[taskcluster TIME]    User Time: DURATION
[taskcluster TIME]  Kernel Time: DURATION
[taskcluster TIME]    Wall Time: DURATION
[taskcluster TIME]  Peak Memory: MEMORY
[taskcluster TIME]       Result: FAILED
[taskcluster TIME] === Task Finished ===
[taskcluster TIME] Task Duration: DURATION
[taskcluster TIME] Task Resolution: failed
`, "TASK", string(id.Task))
}
