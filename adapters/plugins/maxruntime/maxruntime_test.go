package maxruntime_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPlugin(limit int64) *maxruntime.Plugin {
	return maxruntime.New(maxruntime.Config{MaxTaskRunTime: limit}, slog.New(slog.DiscardHandler))
}

func TestConformance(t *testing.T) {
	plugintest.Test(t, func(testing.TB) plugintest.Subject {
		return plugintest.Subject{Plugin: newPlugin(86400), Payload: `{"maxRunTime": 3600}`, Compile: jsonschema.Compile}
	})
}

func TestLimit(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		limit         int64
		fault         string
	}{
		{"less than the worker's", `{"maxRunTime": 59}`, 60, ""},
		{"the worker's", `{"maxRunTime": 60.0}`, 60, ""},
		{"more than the worker's", `{"maxRunTime": 61}`, 60, "maxRunTime: the task asks for 61 seconds, but this worker's maxTaskRunTime is 60 seconds"},
		{"much more, without a limit", `{"maxRunTime": 1e300}`, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plugintest.Start(newPlugin(tt.limit), plugintest.Setup{Payload: tt.payload})
			f := fault.Classify(err)
			switch {
			case tt.fault == "" && err != nil:
				t.Error(err)
			case tt.fault != "" && (f == nil || f.Kind != fault.Malformed || f.Message != tt.fault):
				t.Errorf("error %v, want a malformed payload: %s", err, tt.fault)
			}
		})
	}
}

// start leads a run until its sandbox runs.
func start(ctx context.Context, t *testing.T, payload string) *plugintest.Drive {
	t.Helper()
	d, err := plugintest.Start(newPlugin(0), plugintest.Setup{Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(24 * time.Hour) // preparing does not count
	if err := d.Started(ctx); err != nil {
		t.Fatal(err)
	}
	return d
}

func killed(d *plugintest.Drive) bool {
	select {
	case <-d.Sandbox.Killed():
		return true
	default:
		return false
	}
}

func TestKills(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		after   time.Duration // of the start
		want    bool
	}{
		{"not before the time", `{"maxRunTime": 3600}`, time.Hour - time.Millisecond, false},
		{"at the time", `{"maxRunTime": 3600}`, time.Hour, true},
		{"not for centuries", `{"maxRunTime": 1e300}`, 100 * 365 * 24 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t.Context(), t, tt.payload)
				<-time.After(tt.after)
				synctest.Wait()
				if got := killed(d); got != tt.want {
					t.Errorf("killed: %v, want %v", got, tt.want)
				}
				said := strings.HasPrefix(d.Log(), "[taskcluster:error] Task aborted - max run time exceeded (3600 seconds)\n")
				if said != tt.want {
					t.Errorf("log: %q", d.Log())
				}
				if err := errors.Join(d.Stopped(t.Context()), d.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestKillsThoughTheHooksContextIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := start(ctx, t, `{"maxRunTime": 60}`)
		cancel()
		<-time.After(time.Minute)
		synctest.Wait()
		if !killed(d) {
			t.Error("the sandbox runs on")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestKillsAgainUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := plugintest.Start(newPlugin(0), plugintest.Setup{Payload: `{"maxRunTime": 60}`})
		if err != nil {
			t.Fatal(err)
		}
		times := 0
		d.Sandbox.KillErr = func() error {
			if times++; times < 5 {
				return errors.New("the daemon is away")
			}
			return nil
		}
		if err := d.Started(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if !killed(d) || times != 5 {
			t.Errorf("killed: %v after %d times, want 5", killed(d), times)
		}
		if got := strings.Count(d.Log(), "max run time exceeded"); got != 1 {
			t.Errorf("the log says so %d times", got)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// stalled is a recording that takes nothing until it is released.
type stalled chan struct{}

func (s stalled) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

func TestKillsThoughTheLogStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(stalled)
		p, err := newPlugin(0).NewTaskPlugin(plugin.Task{Payload: []byte(`{"maxRunTime": 60}`), Log: tasklog.New(log)})
		if err != nil {
			t.Fatal(err)
		}
		fakes, err := plugintest.Start(newPlugin(0), plugintest.Setup{Payload: `{"maxRunTime": 60}`})
		if err != nil {
			t.Fatal(err)
		}
		fakes.TaskPlugin = p
		if err := fakes.Started(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute + time.Second) // which the log may take
		synctest.Wait()
		if !killed(fakes) {
			t.Error("the sandbox runs on")
		}
		close(log)
		if err := fakes.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDoesNotKillWhatHasStopped(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop func(*plugintest.Drive) error
	}{
		{"by itself", func(d *plugintest.Drive) error { return d.Stopped(t.Context()) }},
		{"in a run that is over", (*plugintest.Drive).Close},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t.Context(), t, `{"maxRunTime": 60}`)
				<-time.After(59 * time.Second)
				if err := tt.stop(d); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Hour)
				if killed(d) || d.Log() != "" {
					t.Errorf("killed: %v, log %q", killed(d), d.Log())
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Whatever the payload, a time that is granted is over at some time.
func FuzzPayload(f *testing.F) {
	for _, payload := range []string{`{"maxRunTime": 1}`, `{"maxRunTime": 86400.0}`, `{"maxRunTime": 1e308}`, `{"maxRunTime": 9223372036}`} {
		f.Add([]byte(payload))
	}
	p := newPlugin(86400)
	checker, err := jsonschema.Compile(p.PayloadSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if vs, err := checker.Check(payload); err != nil || len(vs) > 0 || !json.Valid(payload) {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			d, err := plugintest.Start(p, plugintest.Setup{Payload: string(payload)})
			if err != nil {
				if f := fault.Classify(err); f.Kind != fault.Malformed {
					t.Errorf("error %v is not the task's", err)
				}
				return
			}
			if err := d.Started(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-time.After(24 * time.Hour)
			synctest.Wait()
			if !killed(d) {
				t.Error("runs for more than a day")
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}
