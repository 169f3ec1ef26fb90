package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	Test(t, func(tb testing.TB) Harness {
		tb.Helper()
		m := new(Memory)
		tb.Cleanup(func() {
			if err := m.Close(); err != nil {
				tb.Error(err)
			}
		})
		return m
	})
}

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	result := func(change func(*engine.Result)) func(*broken) {
		return func(b *broken) {
			b.result = func(r engine.Result) engine.Result {
				change(&r)
				return r
			}
		}
	}
	steps := func(change func(Step) Step) func(*broken) {
		return func(b *broken) { b.step = change }
	}
	defects := map[string][]func(*broken){
		"HasNameAndSchema": {
			func(b *broken) { b.schema = `{"type": "string"}` },
			func(b *broken) { b.schema = `{` },
		},
		"HasTheAbilitiesItDeclares": {
			func(b *broken) { b.declared.Shells = false },
			func(b *broken) { b.declared.Proxies = false },
			func(b *broken) { b.declared.Volumes = false },
			func(b *broken) { b.declared.Interrupts = false },
			func(b *broken) { b.noShells = true },
		},
		"SetsEnvironment": {
			func(b *broken) { b.setEnv = setFirstOnly },
			func(b *broken) { b.setEnv = func(engine.Builder, string, string) error { return nil } },
		},
		"RefusesInvalidEnvironment": {
			func(b *broken) { b.setEnv = func(engine.Builder, string, string) error { return nil } },
			func(b *broken) {
				b.setEnv = func(engine.Builder, string, string) error { return errors.New("no fault") }
			},
		},
		"InheritsNoEnvironment": {func(b *broken) {
			b.built = func(b engine.Builder) {
				for _, v := range os.Environ() {
					name, value, _ := strings.Cut(v, "=")
					_ = b.SetEnv(name, value)
				}
			}
		}},
		"ReportsExitCode": {
			result(func(r *engine.Result) { r.Success = true }),
			result(func(r *engine.Result) { r.ExitCode = min(r.ExitCode, 1) }),
			result(func(r *engine.Result) { r.Signal = "killed" }),
		},
		"FailsWhereThereIsNoSuchCommand": {
			result(func(r *engine.Result) { r.Success = true }),
			func(b *broken) {
				b.wait = func(engine.ResultSet, error) (engine.ResultSet, error) { return nil, errBroken }
			},
		},
		"LogsCommandsInOrder": {
			func(b *broken) { b.log = func(l *tasklog.Log) *tasklog.Log { return tasklog.New(&dropping{l, "two"}) } },
			func(b *broken) {
				b.log = func(l *tasklog.Log) *tasklog.Log { return tasklog.New(&dropping{l, "Result"}) }
			},
		},
		"HasAllOutputInLogAfterWait": {
			func(b *broken) {
				b.log = func(l *tasklog.Log) *tasklog.Log { return tasklog.New(&dropping{l, "tail"}) }
			},
			steps(func(s Step) Step { s.N /= 2; return s }),
		},
		"ReportsUsage":        {result(func(r *engine.Result) { r.Wall = 0 })},
		"WaitsForEveryCaller": {func(b *broken) { b.fresh = true }},
		"CanceledWaitLeavesSandbox": {
			func(b *broken) { b.abortOnCancel = true },
			func(b *broken) { b.cancelError = errBroken },
		},
		"WaitsForAllProcesses": {func(b *broken) { b.undead = true }},
		"KillEndsAsFailure": {
			result(func(r *engine.Result) { r.Success = true }),
			result(func(r *engine.Result) { r.Killed = false }),
			func(b *broken) { b.undead = true },
		},
		"KillAfterEndDoesNothing": {
			func(b *broken) { b.lateKill = true },
			func(b *broken) { b.killError = errBroken },
		},
		"AbortReleasesAll": {
			func(b *broken) { b.undead = true },
			func(b *broken) { b.abort = func(s engine.Sandbox, ctx context.Context) error { return s.Kill(ctx) } },
			func(b *broken) { b.abort = func(engine.Sandbox, context.Context) error { return errBroken } },
		},
		"AbortAfterResultDoesNothing": {func(b *broken) { b.abortRemoves = true }},
		"ClosesBuilder": {
			func(b *broken) { b.closeError = errBroken },
			func(b *broken) { b.closeKills = true },
		},
		"IdentifiesImage": {
			func(b *broken) { b.declared.Images = false },
			func(b *broken) { b.image = func(engine.Image) engine.Image { return engine.Image{Hash: "busybox"} } },
			func(b *broken) {
				b.image = func(i engine.Image) engine.Image { i.ArchiveHash = "sha256:"; return i }
			},
			func(b *broken) {
				n := 0
				b.image = func(engine.Image) engine.Image { n++; return engine.Image{Hash: fmt.Sprintf("sha256:%064d", n)} }
			},
		},
		"ShowsFilesUntilClose": {
			func(b *broken) { b.files = func(fs.FS) fs.FS { return fstest.MapFS{} } },
			func(b *broken) { b.files = func(f fs.FS) fs.FS { return opaque{f} } },
			func(b *broken) { b.files = func(f fs.FS) fs.FS { return lenient{f} } },
			func(b *broken) { b.dir = "/home/task" },
			func(b *broken) { b.closeError = errBroken },
		},
		"FollowsNoLinkOutOfSandbox": {func(b *broken) { b.files = func(f fs.FS) fs.FS { return escaping{f} } }},
		"SeparatesSandboxes": {
			steps(func(s Step) Step {
				if s.Do == Read {
					s.Do = Print
				}
				return s
			}),
		},
		"ServesProxies": {
			func(b *broken) { b.url = "http://elsewhere" },
			func(b *broken) { b.handler = http.NotFoundHandler() },
		},
		"MountsVolumes": {
			func(b *broken) {
				b.attach = func(v engine.VolumeAttacher, p string, w engine.Volume, _ bool) error {
					return v.AttachVolume(p, w, false)
				}
			},
			func(b *broken) {
				b.attach = func(engine.VolumeAttacher, string, engine.Volume, bool) error { return nil }
			},
		},
		"OpensShells": {
			func(b *broken) { b.shellCode = 1 },
			func(b *broken) { b.shellLives = true },
		},
	}
	maps.Copy(defects, reattachDefects())
	maps.Copy(defects, interruptDefects())
	for _, c := range checks() {
		if len(defects[c.name]) == 0 {
			t.Errorf("%s: no defect that this check should catch", c.name)
		}
		for i, defect := range defects[c.name] {
			t.Run(c.name, func(t *testing.T) {
				b := &broken{Memory: new(Memory)}
				b.declared = b.Memory.Abilities()
				defect(b)
				// A defect may keep a check waiting for what never comes.
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := c.check(ctx, quiet{t}, b); err == nil {
					t.Errorf("the check passed an engine with defect %d", i)
				}
			})
		}
	}
}
