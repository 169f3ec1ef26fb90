package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/faultproxy"
)

const (
	// programVariable names the worker that the tests use, once it is built.
	programVariable = "CHAOS_TEST_WORKER"
	// seedVariable may choose another seed than the tests have.
	seedVariable = "CHAOS_SEED"
)

func TestMain(m *testing.M) {
	if isQueue() {
		os.Exit(serveQueue())
	}
	if os.Getenv(programVariable) != "" {
		os.Exit(dockertest.Inside(m.Run))
	}
	code, err := withProgram(func() int { return dockertest.Inside(m.Run) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	os.Exit(code)
}

// withProgram builds a worker that tells of races for as long as f runs.
func withProgram(f func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "dc-linux-worker")
	build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", program, "../../apps/dc-linux-worker")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build worker: %w: %s", err, out)
	}
	if err := os.Setenv(programVariable, program); err != nil {
		return 1, err
	}
	return f(), nil
}

// seed returns the seed of the tests' runs.
func seed(t *testing.T) uint64 {
	t.Helper()
	value := os.Getenv(seedVariable)
	if value == "" {
		return 1
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	return n
}

func TestChaosOnNative(t *testing.T) {
	o := options{engine: "native", seed: seed(t), tasks: 40, kills: 5, patience: 4 * time.Minute, worker: os.Getenv(programVariable)}
	if err := run(t.Context(), o, t.Output()); err != nil {
		t.Error(err)
	}
}

func TestChaosOnDocker(t *testing.T) {
	o := options{engine: "docker", seed: seed(t), tasks: 12, kills: 2, patience: 8 * time.Minute, worker: os.Getenv(programVariable)}
	if err := run(t.Context(), o, t.Output()); err != nil {
		t.Error(err)
	}
}

func TestPlansComeFromTheSeed(t *testing.T) {
	plan := func(seed uint64) (ids []string, scripts []any, all []upset) {
		r := rand.New(rand.NewPCG(seed, 1))
		for range 50 {
			j := newJob(r, slug(r), "native", "/ledger")
			ids, scripts = append(ids, j.id), append(scripts, j.payload)
		}
		return ids, scripts, upsets(r, options{tasks: 50, kills: 10})
	}
	same := cmp.AllowUnexported(upset{})
	ids, payloads, all := plan(1)
	idsAgain, payloadsAgain, allAgain := plan(1)
	if diff := cmp.Diff([]any{ids, payloads, all}, []any{idsAgain, payloadsAgain, allAgain}, same); diff != "" {
		t.Errorf("the same seed gives another plan:\n%s", diff)
	}
	if ids, _, other := plan(2); cmp.Equal(ids, idsAgain) || cmp.Equal(all, other, same) {
		t.Error("another seed gives the same plan")
	}
	kills := 0
	for i, u := range all {
		if u.name == kill || u.name == killAt {
			kills++
		}
		if i > 0 && u.after < all[i-1].after || u.after > 50 {
			t.Errorf("upset %d is after %d tasks", i, u.after)
		}
	}
	if kills != 10 {
		t.Errorf("%d kills, want 10", kills)
	}
	nice := regexp.MustCompile(`^[A-Za-f][A-Za-z0-9_-]{7}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$`)
	for _, id := range ids {
		if !nice.MatchString(id) {
			t.Errorf("%s is no id of a task", id)
		}
	}
}

func TestEveryFailureComesInTurn(t *testing.T) {
	d := &driver{history: newHistory(), proxy: &faultproxy.Proxy{}}
	names := map[string]bool{}
	for _, f := range d.failures(rand.New(rand.NewPCG(1, 1))) {
		names[f.name] = true
	}
	for _, want := range []string{"network: 500", "network: 429", "network: hang", "network: truncate", "network: down", "network: unauthorized", "network: skew", "queue is killed", "disk is full"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestGroupsThatAKilledDaemonHolds(t *testing.T) {
	worker := filepath.Join(t.TempDir(), "taskcluster-worker-0123")
	for group, processes := range map[string]string{"held/container": "7\n", "left/container": ""} {
		dir := filepath.Join(worker, group)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(processes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for group, want := range map[string]bool{"": false, "held": false, "held/container": false, "left": true, "left/container": true} {
		if got := ofContainers(filepath.Join(worker, group)); got != want {
			t.Errorf("%q is held against the worker: %v, want %v", group, got, want)
		}
	}
}

func TestHistoryOfATime(t *testing.T) {
	h := newHistory()
	h.note("kill", "down for %v", time.Second)
	h.over("kill")
	middle := time.Now()
	h.note("later", "no matter")
	var b strings.Builder
	h.write(&b, time.Time{}, middle)
	if got := b.String(); !strings.Contains(got, "kill: down for 1s\n") || !strings.Contains(got, "kill is over\n") || strings.Contains(got, "later") {
		t.Errorf("got %q", got)
	}
	if got := h.count("kill"); got != 1 {
		t.Errorf("counted %d", got)
	}
}

// A worker that loses its tasks must not pass.
func TestAWorkerThatDoesNothingIsFound(t *testing.T) {
	program := filepath.Join(t.TempDir(), "worker")
	script := "#!/bin/sh\necho 'msg=\"worker started\"' >&2\ntrap 'kill $! ; exit 0' TERM\nsleep 3600 & wait\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	o := options{engine: "native", seed: 1, tasks: 3, kills: 1, patience: time.Minute, worker: program}
	err := run(ctx, o, t.Output())
	if err == nil || !strings.Contains(err.Error(), "0 of 3 tasks are resolved") {
		t.Errorf("got %v", err)
	}
}
