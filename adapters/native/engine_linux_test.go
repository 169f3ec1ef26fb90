package native

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// open opens an engine. When the test ends it is closed, and nothing may be left.
func open(tb testing.TB, c Config) *Engine {
	tb.Helper()
	return openWith(tb, c, slog.New(slog.NewTextHandler(tb.Output(), nil)))
}

// openWith opens an engine with a log of its own.
func openWith(tb testing.TB, c Config, log *slog.Logger) *Engine {
	tb.Helper()
	if c.Dir == "" {
		c.Dir = tb.TempDir()
	}
	if c.UserPrefix == "" {
		c.UserPrefix = "tasktest_"
	}
	e := &Engine{config: c.withDefaults(), log: log}
	e.isolated = os.Getenv(namespacesVariable) != "none"
	if err := e.open(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
		leavesNothing(tb, e)
	})
	return e
}

// leavesNothing checks that nothing of an engine that was closed is left.
func leavesNothing(tb testing.TB, e *Engine) {
	tb.Helper()
	entries, err := os.ReadDir(filepath.Join(e.config.Dir, sandboxesName))
	if err != nil || len(entries) > 0 {
		tb.Errorf("left in the directory: %v, %v", entries, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), e.config.Dir) {
		tb.Errorf("mounts are left: %v", err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/taskcluster-worker-*/" + e.places.instance + "*")
	if err != nil || len(groups) > 0 {
		tb.Errorf("control groups are left: %v, %v", groups, err)
	}
}

// safeBuffer is a log that can be read while it is written.
type safeBuffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits until text was written.
func (b *safeBuffer) await(tb testing.TB, text string) {
	tb.Helper()
	for {
		b.mu.Lock()
		if strings.Contains(b.buf.String(), text) {
			b.mu.Unlock()
			return
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-tb.Context().Done():
			tb.Fatalf("waiting for %q in the log: %s", text, b)
		}
	}
}

func start(tb testing.TB, e *Engine, log *safeBuffer, commands ...[]string) engine.Sandbox {
	tb.Helper()
	b, err := e.NewBuilder(tb.Context(), engine.Options{
		Payload:    payloadOf(tb, commands...),
		Log:        tasklog.New(log),
		Definition: task.Definition{TaskQueueID: "pool/queue"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := b.Start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Abort(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func wait(tb testing.TB, s engine.Sandbox) engine.ResultSet {
	tb.Helper()
	r, err := s.Wait(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// run runs a script, and returns its result and its log.
func run(tb testing.TB, e *Engine, script string) (engine.ResultSet, string) {
	tb.Helper()
	log := &safeBuffer{}
	r := wait(tb, start(tb, e, log, []string{"sh", "-c", script}))
	return r, log.String()
}

func BenchmarkTrue(b *testing.B) {
	e := open(b, Config{Capacity: 8})
	once := func() {
		log := &safeBuffer{}
		s := start(b, e, log, []string{"/bin/true"})
		r, err := s.Wait(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if !r.Result().Success {
			b.Fatal(log)
		}
		_ = r.Close()
	}
	b.Run("sequential", func(b *testing.B) {
		for b.Loop() {
			once()
		}
	})
	b.Run("8 at once", func(b *testing.B) {
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				once()
			}
		})
	})
}

// optionsWith returns the options for a run with a log that is written to w.
func optionsWith(tb testing.TB, w io.Writer, commands ...[]string) engine.Options {
	tb.Helper()
	return engine.Options{Payload: payloadOf(tb, commands...), Log: tasklog.New(w)}
}
