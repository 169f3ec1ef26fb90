package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// executioner stands between a worker and its queue, and kills the worker at
// one call, the first time that it is made.
type executioner struct {
	call  string // end of its path
	after bool   // once the queue has answered, which the worker does not learn

	mu     sync.Mutex
	worker *program
	struck bool
}

// between returns the URL of the queue by way of the executioner.
func (x *executioner) between(t *testing.T, queue string) string {
	t.Helper()
	target, err := url.Parse(queue)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if x.after {
				return x.strike(r.Request)
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !x.after && x.strike(r) != nil {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.Close()
		transport.CloseIdleConnections()
	})
	return s.URL
}

// strike kills the worker if this is the call, and returns an error if it has.
func (x *executioner) strike(r *http.Request) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.struck || !strings.HasSuffix(r.URL.Path, x.call) {
		return nil
	}
	x.struck = true
	if err := x.worker.cmd.Process.Kill(); err != nil {
		return err
	}
	return http.ErrAbortHandler
}

// A worker that is killed at any call to the queue is succeeded by one that
// resolves the run, once and rightly, with its log and artifacts.
func TestWorkerKilledAtEachCall(t *testing.T) {
	const artifacts, log = "/artifacts/public/result.txt", "/artifacts/public/logs/live_backing.log"
	succeeds := crashCase{state: "completed", runs: []string{"completed"}, artifacts: true}
	malformed := crashCase{task: "payload: {maxRunTime: 60, command: [[/bin/true]], nonsense: true}", state: "exception", runs: []string{"malformed-payload"}}
	for _, tt := range []struct {
		title string
		call  string
		crashCase
	}{
		{"preparing", "/scopes/expand", crashCase{state: "completed", runs: []string{"worker-shutdown", "completed"}, artifacts: true}},
		{"collecting", artifacts, succeeds},
		{"finishing", log, succeeds},
		{"finishing, with the log stored", "/artifacts/public/logs/live.log", succeeds},
		{"reporting", "/completed", succeeds},
		{"reporting an exception", "/exception", malformed},
		{"salvaging", log, malformed},
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answered %t", tt.title, after), func(t *testing.T) {
				t.Parallel()
				tt.try(t, &executioner{call: tt.call, after: after})
			})
		}
	}
}

// crashCase is a task whose worker is killed.
type crashCase struct {
	task      string
	state     string
	runs      []string // how they are resolved
	artifacts bool
}

func (c crashCase) try(t *testing.T, x *executioner) {
	t.Helper()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{Roles: map[string][]string{
		"gamers": {"generic-worker:os-group:proj-test/crash/games"},
	}})
	l, dir := testConfig(t, "worker: {pool: proj-test/crash, group: g, id: w}\nnative: {dir: "+filepath.Join(b.dir, "..", "crash")+"}")
	root := x.between(t, b.server.RootURL())
	environ := append(b.environ(), "TASKCLUSTER_ROOT_URL="+root)
	args := []string{"start", "--config", filepath.Join(dir, "worker.yml")}

	x.mu.Lock()
	first := startProgramIn(t, environ, args...)
	x.worker = first
	x.mu.Unlock()
	if c.task == "" {
		c.task = "payload: {maxRunTime: 60, osGroups: [games], command: [[/bin/sh, -c, 'echo said once; echo result > result.txt']], " +
			"artifacts: [{type: file, name: public/result.txt, path: result.txt}]}"
	}
	id := b.create(t, "taskQueueId: "+l.Worker.Pool+"\nretries: 1\nscopes: ['assume:gamers']\n"+c.task)
	if err := first.end(t); err == nil || !x.struck {
		t.Fatalf("the worker ends by itself: %v", err)
	}
	second := startProgramIn(t, environ, args...)
	var status client.Status
	eventually(t, "a resolution", func() bool {
		var err error
		status, err = b.queue.Status(t.Context(), id)
		return err == nil && resolved(status.State)
	})
	// What is salvaged comes after the resolution.
	eventually(t, "the end of the run", func() bool {
		left, err := filepath.Glob(filepath.Join(l.Native.Dir, "state", "journal", "*.journal"))
		return err == nil && len(left) == 0
	})
	second.stop(t)

	var got []string
	for _, r := range status.Runs {
		got = append(got, r.ReasonResolved)
	}
	if status.State != c.state || strings.Join(got, " ") != strings.Join(c.runs, " ") {
		t.Errorf("task is %s after runs resolved as %q, want %s and %q", status.State, got, c.state, c.runs)
	}
	last := task.RunID{Task: id, Run: len(status.Runs) - 1}
	said, _ := b.artifact(t, last, "public/logs/live_backing.log")
	if !strings.Contains(said.content, "=== Task Finished ===") {
		t.Errorf("the log is not complete:\n%s", said.content)
	}
	if c.artifacts {
		if n := strings.Count(said.content, "\nsaid once\n"); n != 1 {
			t.Errorf("the task's output is in the log %d times:\n%s", n, said.content)
		}
		if result, _ := b.artifact(t, last, "public/result.txt"); result.content != "result\n" {
			t.Errorf("the artifact is %q", result.content)
		}
	}
	left, err := filepath.Glob(filepath.Join(l.Native.Dir, "state", "*", "*"))
	for _, path := range left {
		if filepath.Base(path) != "lock" {
			t.Errorf("%s is left", path)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if boxes, err := os.ReadDir(filepath.Join(l.Native.Dir, "sandboxes")); err == nil && len(boxes) > 0 {
		t.Errorf("sandboxes are left: %v", boxes)
	}
}
