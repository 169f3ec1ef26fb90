package pressure

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newSource returns a source for a host that has so much.
func newSource(tb testing.TB, cfg Config, disk, memory func() (int64, error)) *Source {
	tb.Helper()
	cfg.Dirs = []string{tb.TempDir()}
	s, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range s.resources {
		r.free = disk
		if r.name == "memory" {
			r.free = memory
		} else {
			r.name = "disk"
		}
	}
	return s
}

// harness is a host whose disk gets full.
type harness struct {
	source *Source
	free   *atomic.Int64
}

func (h harness) Source(testing.TB) interrupt.Source { return h.source }

func (h harness) Announce(testing.TB) string {
	h.free.Store(5 << 20)
	return "low disk: 5 MiB left, at least 10 MiB is needed"
}

func TestConforms(t *testing.T) {
	interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		free := &atomic.Int64{}
		free.Store(20 << 20)
		disk := func() (int64, error) { return free.Load(), nil }
		return harness{newSource(tb, Config{Disk: 10 << 20, Every: time.Millisecond, For: 5 * time.Millisecond}, disk, nil), free}
	})
}

func TestPressure(t *testing.T) {
	start := time.Time{}
	// after returns how much is free, by how long the test has run.
	after := func(steps map[time.Duration]int64) func() (int64, error) {
		return func() (int64, error) {
			free, latest := int64(100<<20), time.Duration(-1)
			for at, n := range steps {
				if at <= time.Since(start) && at > latest {
					free, latest = n, at
				}
			}
			if free < 0 {
				return 0, errors.New("nobody knows")
			}
			return free, nil
		}
	}
	const low = 1 << 20
	for _, tt := range []struct {
		name         string
		disk, memory map[time.Duration]int64
		want         map[time.Duration]string
	}{
		{"there is enough", nil, nil, nil},
		{"the disk is full from the start", map[time.Duration]int64{0: low}, nil, map[time.Duration]string{time.Minute: "low disk: 1 MiB left, at least 10 MiB is needed"}},
		{"a task takes much and gives it back", map[time.Duration]int64{time.Minute: low, 110 * time.Second: 20 << 20, 3 * time.Minute: low, 220 * time.Second: 20 << 20}, nil, nil},
		{
			"both run out",
			map[time.Duration]int64{time.Minute: low},
			map[time.Duration]int64{2 * time.Minute: 2 * low},
			map[time.Duration]string{
				2 * time.Minute: "low disk: 1 MiB left, at least 10 MiB is needed",
				3 * time.Minute: "low memory: 2 MiB left, at least 20 MiB is needed",
			},
		},
		{"it cannot be measured for a while", map[time.Duration]int64{0: -1, time.Minute: low}, nil, map[time.Duration]string{2 * time.Minute: "low disk: 1 MiB left, at least 10 MiB is needed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start = time.Now()
				s := newSource(t, Config{Disk: 10 << 20, Memory: 20 << 20}, after(tt.disk), after(tt.memory))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				got := map[time.Duration]string{}
				for {
					n, err := s.Wait(ctx)
					if err != nil {
						break
					}
					got[time.Since(start)] = n.Cause
				}
				if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("notices (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestMeasuresThisHost(t *testing.T) {
	if free, err := freeDisk(t.TempDir()); err != nil || free <= 0 {
		t.Errorf("disk has %d bytes, %v", free, err)
	}
	s, err := New(Config{Dirs: []string{t.TempDir()}, Disk: 1 << 60, Every: time.Millisecond, For: time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Wait(t.Context()); err != nil || !strings.HasPrefix(n.Cause, "low disk space at ") {
		t.Errorf("notice is %+v, %v", n, err)
	}
}

func TestMeasuresWhereADirectoryWillBe(t *testing.T) {
	if _, err := New(Config{Dirs: []string{filepath.Join(t.TempDir(), "not", "yet")}, Disk: 1}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

func TestNewNamesWhatCannotBeMeasured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(file, "directory")
	_, err := New(Config{Dirs: []string{inside}, Disk: 1}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), inside) {
		t.Errorf("returned %v", err)
	}
}
