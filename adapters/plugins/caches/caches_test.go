package caches_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/caches"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/cache/cachetest"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// purges are requests, and the times since which they were asked for.
type purges struct {
	requests []cache.Purge
	since    []time.Time
	err      error
}

// PurgeRequests implements cache.Purges.
func (p *purges) PurgeRequests(_ context.Context, since time.Time) ([]cache.Purge, error) {
	p.since = append(p.since, since)
	return p.requests, p.err
}

const one = `{"mounts": [{"cacheName": "c", "directory": "dir"}]}`

func TestConformance(t *testing.T) {
	for _, p := range []string{`{}`, one, `{"mounts": [{"cacheName": "c", "directory": "/a"}, {"cacheName": "d", "directory": "b"}], "onExitStatus": {"purgeCaches": [0]}}`} {
		plugintest.Test(t, func(testing.TB) plugintest.Subject {
			return plugintest.Subject{Plugin: caches.New(caches.Config{}, new(cachetest.Memory), new(purges)), Payload: p, Compile: jsonschema.Compile}
		})
	}
}

func TestCachesAreKeptOrDiscarded(t *testing.T) {
	t.Parallel()
	const spoiling = `{"mounts": [{"cacheName": "c", "directory": "dir"}], "onExitStatus": {"purgeCaches": [0, 3.0]}}`
	for _, tt := range []struct {
		title, payload string
		result         engine.Result
		keep           bool
		log            string
	}{
		{"success", one, engine.Result{Success: true}, true, "[mounts] Preserving cache: Moving dir to cache c"},
		{"failure", one, engine.Result{ExitCode: 1}, true, "[mounts] Preserving cache: Moving dir to cache c"},
		{"a task that was killed", one, engine.Result{ExitCode: -1, Killed: true}, false, "[mounts] Removing cache c from cache table"},
		{"a task that ran out of memory", one, engine.Result{ExitCode: -1, OOM: true}, false, "[mounts] Removing cache c from cache table"},
		{"a listed exit code", spoiling, engine.Result{ExitCode: 3}, false, "[mounts] Removing cache c from cache table"},
		{"success that is listed", spoiling, engine.Result{Success: true}, false, "[mounts] Removing cache c from cache table"},
		{"an exit code that is not listed", spoiling, engine.Result{ExitCode: 4}, true, "[mounts] Preserving cache: Moving dir to cache c"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			store := new(cachetest.Memory)
			d, err := plugintest.Through(t.Context(), caches.New(caches.Config{}, store, new(purges)), plugintest.Setup{Payload: tt.payload, Result: tt.result})
			if err != nil {
				t.Fatal(err)
			}
			if d.Builder.Volumes["dir"] == nil {
				t.Error("there is no volume in the sandbox")
			}
			if !strings.Contains(d.Log(), tt.log) {
				t.Errorf("the log lacks %q:\n%s", tt.log, d.Log())
			}
			if l, err := store.Acquire(t.Context(), "c"); err != nil || l.Fresh() == tt.keep {
				t.Errorf("kept: %t, want %t; %v", !l.Fresh(), tt.keep, err)
			}
		})
	}
}

func TestCachesOfAnInterruptedTask(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		title  string
		why    run.Reason
		result engine.Result
		none   bool // there is no result set
		keep   bool
	}{
		{"that was killed", run.WorkerShutdown, engine.Result{ExitCode: -1, Killed: true, Interrupted: true}, false, false},
		{"that was killed without being told", run.WorkerShutdown, engine.Result{ExitCode: -1, Killed: true}, false, false},
		{"that ended well when it was told", run.WorkerShutdown, engine.Result{Interrupted: true}, false, true},
		{"that ended of the signal", run.WorkerShutdown, engine.Result{ExitCode: -1, Signal: "terminated", Interrupted: true}, false, false},
		{"that ended badly when it was told", run.WorkerShutdown, engine.Result{ExitCode: 143, Interrupted: true}, false, false},
		{"that had ended before", run.WorkerShutdown, engine.Result{ExitCode: 1}, false, true},
		{"that left nothing", run.WorkerShutdown, engine.Result{}, true, false},
		{"of which the worker knows nothing good", run.InternalError, engine.Result{Success: true}, false, false},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			store := new(cachetest.Memory)
			d, err := plugintest.Start(caches.New(caches.Config{}, store, new(purges)), plugintest.Setup{Payload: one, Result: tt.result})
			if err := errors.Join(err, d.Prepare(t.Context()), d.BuildSandbox(t.Context())); err != nil {
				t.Fatal(err)
			}
			if tt.none {
				d.ResultSet = nil
			}
			if err := errors.Join(d.Salvage(t.Context(), tt.why), d.Close()); err != nil {
				t.Fatal(err)
			}
			if l, err := store.Acquire(t.Context(), "c"); err != nil || l.Fresh() == tt.keep {
				t.Errorf("kept: %t, want %t; %v", !l.Fresh(), tt.keep, err)
			}
		})
	}
}

func TestCachesOfATaskThatNeverEndedAreDiscarded(t *testing.T) {
	t.Parallel()
	for _, started := range []bool{false, true} {
		store := new(cachetest.Memory)
		l, err := store.Acquire(t.Context(), "c")
		if err := errors.Join(err, l.Keep()); err != nil {
			t.Fatal(err)
		}
		d, err := plugintest.Start(caches.New(caches.Config{}, store, new(purges)), plugintest.Setup{Payload: one})
		if err := errors.Join(err, d.Prepare(t.Context())); err != nil {
			t.Fatal(err)
		}
		if started {
			if err := d.BuildSandbox(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err := store.Acquire(t.Context(), "c"); err != nil || l.Fresh() != started {
			t.Errorf("started: %t, discarded: %t; %v", started, l.Fresh(), err)
		}
	}
}

func TestCachesOfATaskThatOutlivesTheWorker(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		title   string
		held    bool // the next process knows of the lease
		resumed bool
		keep    bool
		log     string
	}{
		{"that goes on with it", true, true, true, "[mounts] Preserving cache: Moving dir to cache c"},
		{"that has lost the lease", false, true, false, "Cache c is going to be lost"},
		{"that cannot go on with it", true, false, false, ""},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			store := new(cachetest.Memory)
			killed, err := plugintest.Start(caches.New(caches.Config{}, store, new(purges)), plugintest.Setup{Payload: one})
			if err := errors.Join(err, killed.Prepare(t.Context()), killed.BuildSandbox(t.Context()), killed.Started(t.Context())); err != nil {
				t.Fatal(err)
			}
			if len(killed.Held) != 1 {
				t.Fatalf("the next process knows of %v", killed.Held)
			}
			p := caches.New(caches.Config{}, store.Restart(t), new(purges))
			setup := plugintest.Setup{Payload: one}
			if tt.held {
				setup.Held = killed.Held
			}
			d, err := plugintest.Start(p, setup)
			if err != nil {
				t.Fatal(err)
			}
			if tt.resumed {
				if err := d.Resumed(t.Context(), time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			// Another task gets a copy of its own meanwhile.
			if l, err := store.Acquire(t.Context(), "c"); err != nil || !l.Fresh() {
				t.Errorf("the cache of the task is taken from it: %v", err)
			} else if err := l.Discard(); err != nil {
				t.Error(err)
			}
			if err := p.Settled(t.Context()); err != nil {
				t.Error(err)
			}
			if tt.resumed {
				if err := d.Stopped(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(d.Log(), tt.log) {
				t.Errorf("the log lacks %q:\n%s", tt.log, d.Log())
			}
			if l, err := store.Acquire(t.Context(), "c"); err != nil || l.Fresh() == tt.keep {
				t.Errorf("kept: %t, want %t; %v", !l.Fresh(), tt.keep, err)
			}
		})
	}
}

func TestPurgeRequestsAreHonoredBeforeATask(t *testing.T) {
	t.Parallel()
	store, asked := new(cachetest.Memory), new(purges)
	p := caches.New(caches.Config{}, store, asked)
	if _, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: one}); err != nil {
		t.Fatal(err)
	}
	asked.requests = []cache.Purge{{Name: "c", Before: time.Now().Add(time.Minute)}}
	d, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: one})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.Log(), "No existing writable directory cache 'c'") {
		t.Errorf("the cache was not purged:\n%s", d.Log())
	}
	if len(asked.since) != 2 || !asked.since[0].IsZero() || time.Since(asked.since[1]) > time.Hour {
		t.Errorf("asked for requests since %v", asked.since)
	}
}

func TestPayloadsAskForCachesByMountsAlone(t *testing.T) {
	t.Parallel()
	p := caches.New(caches.Config{}, nil, nil)
	for raw, want := range map[string]string{
		`{}`: "", `{"mounts": []}`: "", `{"onExitStatus": {"purgeCaches": [1]}}`: "", one: "payload.mounts",
	} {
		if got, err := p.Requested([]byte(raw)); got != want || err != nil {
			t.Errorf("%s asks by %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		title   string
		setup   plugintest.Setup
		purges  purges
		kind    fault.Kind
		message string
	}{
		{"one cache twice", plugintest.Setup{Payload: `{"mounts": [{"cacheName": "c", "directory": "a"}, {"cacheName": "c", "directory": "b"}]}`}, purges{}, fault.Malformed, "cache c is there twice"},
		{"one directory twice", plugintest.Setup{Payload: `{"mounts": [{"cacheName": "c", "directory": "a"}, {"cacheName": "d", "directory": "./a/"}]}`}, purges{}, fault.Malformed, "two caches at a"},
		{"no scope", plugintest.Setup{Payload: one, Denied: []task.Scopes{{"generic-worker:cache:c"}}}, purges{}, fault.Internal, "generic-worker:cache:c"},
		{"no scope of docker-worker", plugintest.Setup{Payload: one, Dialect: payload.DockerWorker, Denied: []task.Scopes{{"docker-worker:cache:c"}}}, purges{}, fault.Internal, "docker-worker:cache:c"},
		{"a service that is down", plugintest.Setup{Payload: one}, purges{err: errors.New("down")}, fault.Unavailable, "purged could not be found out"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			t.Parallel()
			d, err := plugintest.Start(caches.New(caches.Config{}, new(cachetest.Memory), &tt.purges), tt.setup)
			if err == nil {
				err = errors.Join(d.Prepare(t.Context()), d.Close())
			}
			if f := fault.Classify(err); f == nil || f.Kind != tt.kind || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got %v, want %q", err, tt.message)
			}
		})
	}
}
