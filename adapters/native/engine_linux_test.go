package native

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func open(tb testing.TB, c Config) *Engine {
	tb.Helper()
	if c.Dir == "" {
		c.Dir = tb.TempDir()
	}
	if c.UserPrefix == "" {
		c.UserPrefix = "tasktest_"
	}
	e, closeEngine, err := New(tb.Context(), c, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(closeEngine)
	return e
}

func start(tb testing.TB, e *Engine, log *bytes.Buffer, commands ...[]string) engine.Sandbox {
	tb.Helper()
	p, err := json.Marshal(payload{Command: commands})
	if err != nil {
		tb.Fatal(err)
	}
	b, err := e.NewBuilder(tb.Context(), engine.Options{Payload: p, Log: tasklog.New(log)})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := b.Start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestRunsCommand(t *testing.T) {
	e := open(t, Config{})
	var log bytes.Buffer
	s := start(t, e, &log, []string{"sh", "-c", "id; env; pwd; ls -la . /tmp; ps aux; head -20 /proc/self/mountinfo; cat /proc/self/cgroup; grep Cap /proc/self/status; ls -la /proc/self/fd; mount | grep " + e.config.Dir})
	r, err := s.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Result())
	t.Log(log.String())
	if !strings.Contains(log.String(), "uid=") {
		t.Error("no output")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkTrue(b *testing.B) {
	e := open(b, Config{Capacity: 8})
	run := func() {
		var log bytes.Buffer
		s := start(b, e, &log, []string{"/bin/true"})
		r, err := s.Wait(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if !r.Result().Success {
			b.Fatal(log.String())
		}
		_ = r.Close()
	}
	b.Run("sequential", func(b *testing.B) {
		for b.Loop() {
			run()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				run()
			}
		})
	})
}
