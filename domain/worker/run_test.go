package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry/telemetrytest"
)

func TestOutcomes(t *testing.T) {
	ctxErr := errors.New("boom")
	for _, tt := range []struct {
		name   string
		script string
		plugin scriptedPlugin
		want   run.Resolution
		inLog  []string
	}{
		{"a sandbox that succeeds", "ok", scriptedPlugin{}, completed, []string{"=== Task Starting ===", "output of the task", "=== Task Finished ===", "Task Duration: "}},
		{"a sandbox that fails", "fail", scriptedPlugin{}, failed, nil},
		{"a payload that breaks the schema", "wrong", scriptedPlugin{}, exception(run.MalformedPayload), []string{"payload.wrong: unknown property", `"$schema"`}},
		{"an engine that panics", "build-panic", scriptedPlugin{}, exception(run.InternalError), []string{"incident "}},
		{"an engine that cannot start the sandbox", "no-start", scriptedPlugin{}, exception(run.InternalError), []string{"incident "}},
		{"a plugin that cannot be made", "ok", scriptedPlugin{newPart: func(plugin.Task) error { return fault.Malformedf("bad part") }}, exception(run.MalformedPayload), []string{"bad part"}},
		{"a mount that cannot be fetched", "ok", scriptedPlugin{prepare: func(context.Context) error { return fault.Failuref(ctxErr, "no such file") }}, failed, []string{"[taskcluster:error] no such file"}},
		{"a registry that is away", "ok", scriptedPlugin{prepare: func(context.Context) error { return fault.Unavailablef(ctxErr, "registry") }}, exception(run.ResourceUnavailable), []string{"[taskcluster:error] registry\n"}},
		{"a plugin that panics", "ok", scriptedPlugin{build: func(context.Context, engine.Builder) error { panic("oh") }}, exception(run.InternalError), []string{"incident "}},
		{"a task that is failed once it runs", "forever", scriptedPlugin{started: func(context.Context, engine.Sandbox) error { return fault.Failuref(nil, "not today") }}, failed, []string{"not today"}},
		{"a kill", "forever", scriptedPlugin{started: func(ctx context.Context, s engine.Sandbox) error { return s.Kill(ctx) }}, failed, nil},
		{"a required artifact that is missing", "ok", scriptedPlugin{stopped: func(context.Context, engine.ResultSet) error { return fault.Failuref(nil, "artifact x is missing") }}, failed, []string{"artifact x is missing"}},
		{"an artifact that cannot be uploaded", "ok", scriptedPlugin{stopped: func(context.Context, engine.ResultSet) error { return fault.Unavailablef(ctxErr, "upload") }}, exception(run.ResourceUnavailable), nil},
		{"an artifact that cannot be uploaded by a task that failed", "fail", scriptedPlugin{stopped: func(context.Context, engine.ResultSet) error { return fault.Unavailablef(ctxErr, "upload") }}, failed, []string{"upload"}},
		{"an exit code to retry", "fail", scriptedPlugin{stopped: func(context.Context, engine.ResultSet) error { return fault.Intermittentf("exit code 4") }}, exception(run.IntermittentTask), []string{"exit code 4"}},
		{"a log that cannot be uploaded", "ok", scriptedPlugin{finish: failOnce(fault.Unavailablef(ctxErr, "upload log"))}, exception(run.ResourceUnavailable), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				tt.plugin.name = "test"
				var closed atomic.Int64 // runs of one task may overlap
				tt.plugin.closed = func() { closed.Add(1) }
				made := tt.plugin.newPart == nil
				f.deps.Plugins = []plugin.Plugin{&tt.plugin}
				id := f.addTask(tt.script)
				f.start()
				f.expect(id, tt.want, tt.inLog...)
				f.shutDown()
				if got, want := int(closed.Load()), len(f.reports); made && got != want {
					f.Errorf("the plugin's parts were closed %d times in %d runs", got, want)
				}
			})
		})
	}
}

func failOnce(err error) func(context.Context, run.Resolution, plugin.Log) error {
	return func(context.Context, run.Resolution, plugin.Log) error {
		defer func() { err = nil }()
		return err
	}
}

func TestHooksComeInOrder(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script string
		want   []string
	}{
		{"of a run that completes", "ok", []string{"prepare", "build", "started", "stopped", "finished completed", "resolved", "closed"}},
		{"of a run that fails", "fail", []string{"prepare", "build", "started", "stopped", "finished failed", "resolved", "closed"}},
		{"of an exception, which is reported first", "no-start", []string{"prepare", "build", "resolved", "salvage internal-error", "finished exception (internal-error)", "closed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				var got []string
				note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{
					name:    "test",
					prepare: func(context.Context) error { note("prepare"); return nil },
					build:   func(context.Context, engine.Builder) error { note("build"); return nil },
					started: func(context.Context, engine.Sandbox) error { note("started"); return nil },
					stopped: func(context.Context, engine.ResultSet) error { note("stopped"); return nil },
					salvage: func(_ context.Context, why run.Reason, _ engine.ResultSet) error { note("salvage %s", why); return nil },
					finish: func(_ context.Context, r run.Resolution, log plugin.Log) error {
						note("finished %v", r)
						text, err := log.Open()
						if err != nil {
							return err
						}
						whole, err := io.ReadAll(text)
						if !strings.Contains(string(whole), "=== Task Finished ===") {
							f.Errorf("the log is not whole when it is finished:\n%s", whole)
						}
						return errors.Join(err, text.Close())
					},
					closed: func() { note("closed") },
				}}
				f.queue.On(queuetest.Resolve, func(queuetest.Call) queuetest.Reply {
					note("resolved")
					return queuetest.Reply{}
				})
				id := f.addTask(tt.script)
				f.start()
				f.resolution(id)
				f.shutDown()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					f.Errorf("hooks (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLogOfAMalformedTaskIsStored(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		newPart      func(plugin.Task) error
	}{
		{"whose payload breaks the schema", "wrong", nil},
		{"that a plugin refuses", "ok", func(plugin.Task) error { return fault.Malformedf("no") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				stored := false
				f.deps.Plugins = []plugin.Plugin{
					&scriptedPlugin{name: "strict", newPart: tt.newPart},
					&scriptedPlugin{name: "log", finish: func(context.Context, run.Resolution, plugin.Log) error {
						stored = true
						return nil
					}},
				}
				id := f.addTask(tt.script)
				f.start()
				f.expect(id, exception(run.MalformedPayload))
				f.shutDown()
				if !stored {
					f.Error("the log was not stored")
				}
			})
		})
	}
}

func TestFirstErrorInDeclaredOrderDecides(t *testing.T) {
	bubble(t, func(f *fixture) {
		called := 0
		stopper := func(name string, err error) *scriptedPlugin {
			return &scriptedPlugin{name: name, stopped: func(context.Context, engine.ResultSet) error { called++; return err }}
		}
		f.deps.Plugins = []plugin.Plugin{
			stopper("one", nil),
			stopper("two", fault.Malformedf("second")),
			stopper("three", fault.Unavailablef(errors.New("x"), "third")),
		}
		id := f.addTask("ok")
		f.start()
		f.expect(id, exception(run.MalformedPayload), "second", "third")
		if called != 3 {
			f.Errorf("%d of 3 plugins were called", called)
		}
		f.shutDown()
	})
}

func TestPreparationsRunTogetherAndStopTogether(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.deps.Plugins = []plugin.Plugin{
			&scriptedPlugin{name: "slow", prepare: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			&scriptedPlugin{name: "bad", prepare: func(context.Context) error { return fault.Malformedf("no") }},
		}
		id := f.addTask("ok")
		start := time.Now()
		f.start()
		f.expect(id, exception(run.MalformedPayload))
		if took := time.Since(start); took > time.Second {
			f.Errorf("one plugin kept another one's error back for %v", took)
		}
		f.shutDown()
	})
}

func TestHookThatNeverEndsCostsOneRunOnly(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Capacity = 1
		f.cfg.Cleanup = time.Minute
		f.cfg.Poll = time.Second
		release := make(chan struct{})
		var stuck atomic.Bool
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "stuck", prepare: func(context.Context) error {
			if !stuck.Swap(true) {
				<-release
			}
			return nil
		}}}
		first := f.addTask("ok")
		f.start()
		f.sleep(time.Second)
		f.queue.Cancel(first.Task)
		f.expect(f.addTask("ok"), completed)
		close(release)
		f.stop()
		<-f.done
	})
}

func TestInternalErrorsInARowStopTheWorker(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.cfg.Capacity, f.cfg.Faults = 1, 3
		for _, script := range []string{"no-start", "no-start", "ok", "no-start", "no-start", "no-start"} {
			f.addTask(script)
		}
		last := f.addTask("ok")
		f.start()
		if err := f.stopped(); !errors.Is(err, worker.ErrUnhealthy) {
			f.Errorf("worker ended with %v, want ErrUnhealthy", err)
		}
		if got := f.queue.Resolution(last); got != (run.Resolution{}) {
			f.Errorf("a sick worker took another task: %v", got)
		}
	})
}

func TestPluginsCannotWriteToNamesOfOthers(t *testing.T) {
	bubble(t, func(f *fixture) {
		var store artifact.Store
		f.deps.Plugins = []plugin.Plugin{
			&scriptedPlugin{
				name:    "artifacts",
				newPart: func(t plugin.Task) error { store = t.Artifacts; return nil },
				stopped: func(ctx context.Context, _ engine.ResultSet) error {
					m := artifact.Meta{Name: "public/log", Expires: time.Now().Add(10 * time.Hour)}
					for _, err := range []error{
						store.Upload(ctx, m, artifact.Content{}),
						store.Redirect(ctx, m, "https://example.com"),
						store.Link(ctx, m, "other"),
						store.Explain(ctx, m, artifact.FileMissing, ""),
					} {
						if !errors.Is(err, artifact.ErrReserved) {
							return fmt.Errorf("want ErrReserved: %w", err)
						}
					}
					m.Name = "public/mine"
					return store.Redirect(ctx, m, "https://example.com")
				},
			},
			&scriptedPlugin{name: "log", names: []string{"public/log"}},
		}
		id := f.addTask("ok")
		f.start()
		f.expect(id, completed)
		f.shutDown()
	})
}

func TestDisabledFeatures(t *testing.T) {
	const schema = `{"type":"object","properties":{"mounts":{"type":"array"},"features":{"type":"object","properties":{"shell":{"type":"boolean"}}}},"required":["mounts"]}`
	for _, tt := range []struct {
		name, payload string
		want          run.Resolution
		inLog         string
	}{
		{"a flag that is set", `{"features":{"shell":true}}`, exception(run.MalformedPayload), "feature mounts is disabled on worker pool pool/type: payload.features.shell"},
		{"a flag that is not set", `{"features":{"shell":false}}`, completed, ""},
		{"a property", `{"mounts":[]}`, exception(run.MalformedPayload), "payload.mounts"},
		{"none", `{}`, completed, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.deps.Disabled = []plugin.Plugin{&scriptedPlugin{name: "mounts", schema: schema}}
				id := task.RunID{Task: f.queue.AddTask(task.Definition{Payload: []byte(tt.payload)})}
				f.start()
				f.expect(id, tt.want, tt.inLog)
				f.shutDown()
			})
		})
	}
}

func TestAuthorize(t *testing.T) {
	for _, tt := range []struct {
		name   string
		scopes task.Scopes
		want   run.Resolution
		inLog  string
	}{
		{"the task has the scope", task.Scopes{"role:*"}, completed, ""},
		{"a role has the scope", task.Scopes{"assume:role"}, completed, ""},
		{"the task has another scope", task.Scopes{"role:other"}, exception(run.MalformedPayload), "the task lacks scopes: it needs role:scope, or a and b"},
		{"a role has another scope", task.Scopes{"assume:other"}, exception(run.MalformedPayload), "role:scope"},
		{"roles cannot be expanded", task.Scopes{"assume:broken"}, exception(run.ResourceUnavailable), "could not be expanded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "test", newPart: func(p plugin.Task) error {
					return p.Authorize(f.Context(), task.Scopes{"role:scope"}, task.Scopes{"a", "b"})
				}}}
				id := task.RunID{Task: f.queue.AddTask(task.Definition{Scopes: tt.scopes, Payload: []byte(`{"script":"ok"}`)})}
				f.start()
				f.expect(id, tt.want, tt.inLog)
				f.shutDown()
			})
		})
	}
}

func TestRunIsTraced(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.deps.Plugins = []plugin.Plugin{&scriptedPlugin{name: "test"}}
		id := f.addTask("ok")
		f.start()
		f.expect(id, completed)
		f.shutDown()
		want := []string{
			"run",
			"  run.claimed",
			"  run.preparing", "    plugin.test.prepare",
			"  run.building", "    plugin.test.build-sandbox",
			"  run.running", "    plugin.test.started",
			"  run.collecting", "    plugin.test.stopped",
			"  run.finishing", "    plugin.test.finished",
			"  run.reporting",
			"  run.disposing",
		}
		if diff := cmp.Diff(want, tree(f.telemetry.Recording().Spans, "")); diff != "" {
			f.Errorf("spans (-want +got):\n%s", diff)
		}
		if counts := f.telemetry.Recording().Counts; len(counts) != 1 || counts[0].Name != "tasks" || counts[0].Attrs["outcome"] != "completed" {
			f.Errorf("counts are %v", counts)
		}
	})
}

func tree(spans []telemetrytest.Span, indent string) []string {
	var lines []string
	for _, s := range spans {
		lines = append(lines, indent+s.Name)
		lines = append(lines, tree(s.Children, indent+"  ")...)
	}
	return lines
}

func TestReportHasTheStages(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.addTask("sleep 3m")
		f.start()
		f.expect(id, completed)
		f.shutDown()
		i := slices.IndexFunc(f.reports, func(r worker.Report) bool { return r.Run == id })
		if i < 0 || f.reports[i].Stages[run.Running] != 3*time.Minute || f.reports[i].Resolution != completed {
			f.Errorf("reports are %v", f.reports)
		}
	})
}
