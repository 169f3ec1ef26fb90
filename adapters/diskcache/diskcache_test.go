package diskcache_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/diskcache"
	"github.com/taskcluster/taskcluster-worker/ports/cache"
	"github.com/taskcluster/taskcluster-worker/ports/cache/cachetest"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	cachetest.Test(t, func(tb testing.TB) cachetest.Harness {
		tb.Helper()
		h := &harness{file: filepath.Join(tb.TempDir(), "caches", "table.json"), volumes: new(enginetest.Memory)}
		h.open(tb)
		return h
	})
}

type harness struct {
	file    string
	volumes *enginetest.Memory
	store   *diskcache.Store
}

func (h *harness) open(tb testing.TB) {
	tb.Helper()
	s, _, err := diskcache.New(tb.Context(), diskcache.Config{File: h.file}, h.volumes, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	h.store = s
}

func (h *harness) Store(testing.TB) cache.Store      { return h.store }
func (h *harness) Volumes(testing.TB) engine.Volumes { return h.volumes }
func (h *harness) Restart(tb testing.TB) cache.Store {
	tb.Helper()
	h.open(tb)
	return h.store
}

func TestTableThatCannotBeReadCostsTheCachesAlone(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{", `{"version": 2}`, `{"version": 1, "copies": [null]}`, `{"version": 1, "copies": [{"volume": "a"}, {"volume": "a"}]}`} {
		h := &harness{file: filepath.Join(t.TempDir(), "table.json"), volumes: new(enginetest.Memory)}
		h.open(t)
		l, err := h.store.Acquire(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Keep(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		h.open(t)
		if _, err := h.volumes.OpenVolume(t.Context(), l.Volume().ID()); err == nil {
			t.Errorf("with the table %q, the volume of a lost cache is left", content)
		}
		if l, err = h.store.Acquire(t.Context(), "a"); err != nil || !l.Fresh() {
			t.Errorf("with the table %q: %v", content, err)
		}
	}
}

func TestTemporaryCachesGoWithTheStore(t *testing.T) {
	t.Parallel()
	volumes := new(enginetest.Memory)
	c := diskcache.Config{File: filepath.Join(t.TempDir(), "table.json"), Temporary: true}
	s, shut, err := diskcache.New(t.Context(), c, volumes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Keep(); err != nil {
		t.Fatal(err)
	}
	shut()
	if _, err := volumes.OpenVolume(t.Context(), l.Volume().ID()); err == nil {
		t.Error("a volume is left")
	}
}

func TestDiskThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := &harness{file: filepath.Join(dir, "caches", "table.json"), volumes: new(enginetest.Memory)}
	h.open(t)
	if err := os.RemoveAll(filepath.Dir(h.file)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Dir(h.file), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := h.store.Acquire(t.Context(), "a")
	if err == nil || !strings.Contains(err.Error(), "write table of caches") {
		t.Errorf("got %v", err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"version": 1, "copies": [{"name": "a", "volume": "b", "leased": true}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		h := &harness{file: filepath.Join(t.TempDir(), "table.json"), volumes: new(enginetest.Memory)}
		if err := os.WriteFile(h.file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		h.open(t)
		if _, err := h.store.Acquire(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}
