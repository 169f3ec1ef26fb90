package drainfile

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSource(tb testing.TB) *Source {
	tb.Helper()
	return New(Config{Dir: tb.TempDir(), Every: 5 * time.Millisecond}, slog.New(slog.DiscardHandler))
}

func (s *Source) put(tb testing.TB, content string) {
	tb.Helper()
	temporary := filepath.Join(s.cfg.Dir, "temporary")
	if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(s.cfg.Dir, name)); err != nil {
		tb.Fatal(err)
	}
}

// harness puts a file for tasks to finish, and then one to abort them.
type harness struct {
	source *Source
	words  []string
}

func (h *harness) Source(testing.TB) interrupt.Source { return h.source }

func (h *harness) Announce(tb testing.TB) string {
	tb.Helper()
	word := h.words[0]
	h.words = h.words[1:]
	h.source.put(tb, word)
	if word == abort {
		return "drain file: abort"
	}
	return "drain file"
}

func TestConforms(t *testing.T) {
	interrupttest.Test(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		return &harness{newSource(tb), []string{finish, abort}}
	})
}

func TestWords(t *testing.T) {
	for content, aborts := range map[string]bool{"": false, "finish": false, "abort\n": true, "abort, please": false, "\xff\x00": false} {
		s := newSource(t)
		s.put(t, content)
		before := time.Now()
		n, err := s.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if aborts != !n.Deadline.IsZero() {
			t.Errorf("%q makes %+v; want a deadline: %t", content, n, aborts)
		}
		if left := n.Deadline.Sub(before); aborts && (left < 30*time.Second || left > time.Minute) {
			t.Errorf("%q leaves %v", content, left)
		}
	}
}

func TestDirectoryInPlaceOfTheFileIsHeeded(t *testing.T) {
	s := newSource(t)
	if err := os.MkdirAll(filepath.Join(s.cfg.Dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Wait(t.Context()); err != nil || n.Cause != "drain file" {
		t.Errorf("notice %+v, %v", n, err)
	}
}

func TestWaitsForTheDirectory(t *testing.T) {
	s := newSource(t)
	s.cfg.Dir = filepath.Join(s.cfg.Dir, "later")
	waited := make(chan error, 1)
	go func() {
		_, err := s.Wait(t.Context())
		waited <- err
	}()
	if err := os.Mkdir(s.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.put(t, finish)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestDrain(t *testing.T) {
	for _, aborts := range []bool{false, true} {
		s := newSource(t)
		drained := make(chan error, 1)
		go func() { drained <- Drain(t.Context(), s.cfg.Dir, aborts) }()
		n, err := s.Wait(t.Context())
		if err != nil || aborts != !n.Deadline.IsZero() {
			t.Errorf("notice is %+v, %v; want one to abort: %t", n, err, aborts)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
		expectNothingIn(t, s.cfg.Dir)
	}
}

func TestDrainSaysThatNobodyHeedsIt(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Drain(ctx, dir, false); !errors.Is(err, ErrNotTaken) {
		t.Errorf("returned %v, want %v", err, ErrNotTaken)
	}
	expectNothingIn(t, dir)
}

func TestDrainNeedsTheDirectory(t *testing.T) {
	if err := Drain(t.Context(), filepath.Join(t.TempDir(), "nowhere"), false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("returned %v", err)
	}
}

func expectNothingIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%v are left in the directory, %v", entries, err)
	}
}
