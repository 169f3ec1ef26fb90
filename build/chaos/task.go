package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/verdict"
)

// kind is a kind of task.
type kind struct {
	name   string
	weight int // how often it comes

	// script returns the commands of a task, for a shell. Those of most print
	// numbered lines.
	script func(r *rand.Rand) (script string, lines int)
	want   func(id string) verdict.Expectation

	properties map[string]any // of the payload, besides command and maxRunTime
	maxRunTime int            // in seconds; 300 if zero
	deadline   int            // in seconds; an hour if zero
	cancel     bool           // somebody cancels it
}

// count is a function for scripts that prints so many numbered lines, some time
// apart.
const count = `i=0
count() { n=$((i+$1)); while [ $i -lt $n ]; do echo "line $i of the task"; i=$((i+1)); $2; done; }
`

func completed(string) verdict.Expectation {
	return verdict.Expectation{State: "completed", Reason: "completed"}
}

func failed(says string) func(string) verdict.Expectation {
	return func(string) verdict.Expectation {
		return verdict.Expectation{State: "failed", Reason: "failed", Says: says}
	}
}

func except(reason, says string) func(string) verdict.Expectation {
	return func(string) verdict.Expectation {
		return verdict.Expectation{State: "exception", Reason: reason, Says: says}
	}
}

// plain returns a script that prints some lines, and does something.
func plain(lines int, pause, then string) func(*rand.Rand) (string, int) {
	return func(*rand.Rand) (string, int) {
		return fmt.Sprintf("%scount %d %q\n%s", count, lines, pause, then), lines
	}
}

// sleeping returns a script that takes some seconds.
func sleeping(r *rand.Rand) (string, int) {
	lines := 5 + r.IntN(45)
	return fmt.Sprintf("%scount %d 'sleep 0.1'", count, lines), lines
}

// stored is what tasks write to files: so many lines with their own id.
func stored(id string, lines int) []byte { return bytes.Repeat([]byte(id+"\n"), lines) }

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// store is a script that makes such a file, however long the disk is full.
func store(name string, lines int) string {
	const idLength = 22
	return fmt.Sprintf("until yes \"$TASK_ID\" 2>/dev/null | head -n %d >%s && [ $(wc -c <%s) = %d ]; do sleep 0.2; done\n",
		lines, name, name, lines*(idLength+1))
}

func artifact(name, kind string) map[string]any {
	return map[string]any{"type": kind, "path": name, "name": "public/" + name}
}

// The sizes of artifacts, in lines.
const small, large = 1000, 100_000

// kinds returns all kinds of tasks.
func kinds() []kind {
	return []kind{
		{name: "quick", weight: 4, script: plain(20, ":", ""), want: completed},
		{name: "sleeping", weight: 6, script: sleeping, want: completed},
		{name: "failing", weight: 3, script: plain(10, ":", "exit 1"), want: failed("")},
		{name: "killed by itself", weight: 1, script: plain(10, ":", "sh -c 'kill -9 $$' || exit 9"), want: failed("")},
		{name: "flood", weight: 1, script: plain(20_000, ":", ""), want: completed},
		{
			name: "intermittent", weight: 2, script: plain(10, ":", `[ "$RUN_ID" != 0 ] || exit 75`),
			properties: map[string]any{"onExitStatus": map[string]any{"retry": []int{75}}},
			want: func(string) verdict.Expectation {
				return verdict.Expectation{State: "completed", Reason: "completed", Retried: []string{"intermittent-task"}}
			},
		},
		{
			name: "too long", weight: 2, script: plain(50_000, "sleep 0.2", ""), maxRunTime: 2,
			want: func(id string) verdict.Expectation {
				e := failed("max run time exceeded")(id)
				e.Cut = true
				return e
			},
		},
		{
			name: "malformed", weight: 1, script: plain(1, ":", ""), properties: map[string]any{"maxRunTime": "long"},
			want: except("malformed-payload", "maxRunTime"),
		},
		{
			name: "storing", weight: 4, script: plain(10, ":", "mkdir -p out/deep\n"+store("out/a.txt", small)+store("out/deep/b.bin", large)+store("c.txt", small)),
			properties: map[string]any{"artifacts": []any{artifact("out", "directory"), artifact("c.txt", "file")}},
			want: func(id string) verdict.Expectation {
				e := completed(id)
				e.Artifacts = map[string]string{
					"public/out/a.txt": sum(stored(id, small)), "public/out/deep/b.bin": sum(stored(id, large)),
					"public/c.txt": sum(stored(id, small)),
				}
				return e
			},
		},
		{
			name: "storing nothing", weight: 1, script: plain(5, ":", ""),
			properties: map[string]any{"artifacts": []any{artifact("missing.txt", "file")}},
			want: func(id string) verdict.Expectation {
				e := failed("missing.txt")(id)
				e.Artifacts = map[string]string{"public/missing.txt": Missing}
				return e
			},
		},
		{
			name: "leaving processes", weight: 3, want: completed,
			script: plain(10, "sleep 0.1", "setsid sleep 3600 & (trap '' TERM HUP INT; setsid sh -c 'sleep 3600' &) &\nsleep 0.1"),
		},
		{
			name: "canceled", weight: 2, script: plain(50_000, "sleep 0.2", ""), cancel: true,
			want: func(id string) verdict.Expectation {
				e := except("canceled", "")(id)
				e.NoLog = true
				return e
			},
		},
		{
			name: "late", weight: 1, script: plain(50_000, "sleep 0.2", ""), deadline: 12,
			want: func(id string) verdict.Expectation {
				e := except("deadline-exceeded", "")(id)
				e.NoLog = true
				return e
			},
		},
	}
}

// Missing stands for the sum of an artifact that says why there is none.
const Missing = "an error"

// job is one task to be run.
type job struct {
	kind     kind
	id       string
	payload  map[string]any
	want     verdict.Expectation
	patience float64 // when to cancel it, as a share of a few seconds
}

// newJob makes a task of a random kind.
func newJob(r *rand.Rand, id, engine, ledger string) job {
	k := choose(r, kinds())
	script, lines := k.script(r)
	witness := func(what string) string {
		if ledger == "" {
			return ""
		}
		// A directory is made once. A full disk is not that of the ledger.
		return fmt.Sprintf("mkdir %[1]s/$TASK_ID.$RUN_ID.%[2]s || mkdir %[1]s/$TASK_ID.$RUN_ID.%[2]s.again\n", ledger, what)
	}
	script = witness("begun") + script + "\n" + witness("ended")
	payload := map[string]any{"command": [][]string{{"/bin/sh", "-c", script}}, "maxRunTime": 300}
	if k.maxRunTime > 0 {
		payload["maxRunTime"] = k.maxRunTime
	}
	if engine == "docker" {
		payload["image"] = image
	}
	maps.Copy(payload, k.properties)
	want := k.want(id)
	want.Lines = lines
	return job{kind: k, id: id, payload: payload, want: want, patience: r.Float64()}
}

// choose returns one of the kinds, by their weights.
func choose(r *rand.Rand, all []kind) kind {
	total := 0
	for _, k := range all {
		total += k.weight
	}
	at := r.IntN(total)
	for _, k := range all {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	panic("weights of kinds of tasks: " + strconv.Itoa(total))
}

// slug returns an id for a task.
func slug(r *rand.Rand) string {
	const (
		all   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef" // a slug that is nice to command lines
	)
	sets := []string{first, all, all, all, all, all, all, all, "QRST", all, "CGKOSWaeimquy26-", all, all, all, all, all, all, all, all, all, all, "AQgw"}
	var b strings.Builder
	for _, set := range sets {
		b.WriteByte(set[r.IntN(len(set))])
	}
	return b.String()
}
