package logfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// left returns the files of a recording in dir.
func left(tb testing.TB, dir string) (log, position string) {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		tb.Fatalf("the directory has %v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			tb.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	return filepath.Join(dir, entries[0].Name()), filepath.Join(dir, entries[1].Name())
}

// TestResumesAfterAKillAtAnyInstant has, in place of a process that is killed
// while it appends, what that leaves.
func TestResumesAfterAKillAtAnyInstant(t *testing.T) {
	change := func(name string, flags int, change func(*os.File) error) error {
		f, err := os.OpenFile(name, os.O_WRONLY|flags, 0)
		if err != nil {
			return err
		}
		return errors.Join(change(f), f.Close())
	}
	appendTo := func(name, text string) error {
		return change(name, os.O_APPEND, func(f *os.File) error {
			_, err := f.WriteString(text)
			return err
		})
	}
	overwrite := func(name string, at int64, bytes string) error {
		return change(name, 0, func(f *os.File) error {
			_, err := f.WriteAt([]byte(bytes), at)
			return err
		})
	}
	for name, tt := range map[string]struct {
		kill func(log, position string) error
		text string
		at   tasklog.Position
	}{
		"between two calls":            {func(string, string) error { return nil }, "one\ntwo\n", 8},
		"in the middle of the log":     {func(log, _ string) error { return appendTo(log, "thr") }, "one\ntwo\n", 8},
		"between log and position":     {func(log, _ string) error { return appendTo(log, "three\n") }, "one\ntwo\n", 8},
		"in the middle of a position":  {func(_, p string) error { return overwrite(p, 0, "\xff\xff\xff") }, "one\n", 4},
		"at the end of a position":     {func(_, p string) error { return overwrite(p, 27, "\xff") }, "one\n", 4},
		"in the other of the two ones": {func(_, p string) error { return overwrite(p, 30, "\xff\xff\xff") }, "one\ntwo\n", 8},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := record(t, dir)
			r.Append([]byte("one\n"), 4) // the third mark, and so in the second place
			r.Append([]byte("two\n"), 8)
			log, position := left(t, dir)
			if err := tt.kill(log, position); err != nil {
				t.Fatal(err)
			}
			resumed, at, err := newRecorder(t, dir).Resume(id)
			if err != nil {
				t.Fatal(err)
			}
			if got := text(t, resumed); got != tt.text || at != tt.at {
				t.Errorf("resumed %q at %d, want %q at %d", got, at, tt.text, tt.at)
			}
			if err := resumed.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResumesNothingWithoutWhatItNeeds(t *testing.T) {
	for name, damage := range map[string]func(log, position string) error{
		"no log":             func(log, _ string) error { return os.Remove(log) },
		"no position":        func(_, position string) error { return os.Remove(position) },
		"an empty position":  func(_, position string) error { return os.Truncate(position, 0) },
		"a log cut short":    func(log, _ string) error { return os.Truncate(log, 2) },
		"positions of zeros": func(_, position string) error { return os.WriteFile(position, make([]byte, 56), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := record(t, dir)
			r.Append([]byte("one\n"), 4)
			if err := damage(left(t, dir)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := newRecorder(t, dir).Resume(id); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Resume returned %v, want fs.ErrNotExist", err)
			}
		})
	}
}

// TestFullDiskLeavesThePositionAtTheFile loses what is only in memory, and
// tells the engine to yield it again.
func TestFullDiskLeavesThePositionAtTheFile(t *testing.T) {
	dir := smallDisk(t, "64k")
	r := record(t, dir)
	for i := range 1000 {
		r.Append([]byte(strings.Repeat("x", 99)+"\n"), tasklog.Position(100*(i+1)))
	}
	resumed, at, err := newRecorder(t, dir).Resume(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, resumed); int64(len(got)) != int64(at) || at == 0 || at == 100_000 || strings.Contains(got, "truncated") {
		t.Errorf("resumed %d bytes at %d", len(got), at)
	}
	if err := resumed.Close(); err != nil {
		t.Error(err)
	}
}

func TestHostileIDsStayInTheDirectory(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	r, err := newRecorder(t, inner).Record(task.RunID{Task: "../../escaped"})
	if err != nil {
		t.Fatal(err)
	}
	left(t, inner)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory above has %v, %v", entries, err)
	}
}

func TestWithoutADirectoryNothingIsResumed(t *testing.T) {
	r := newRecorder(t, "")
	if err := r.Keep(); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Resume(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Resume returned %v, want fs.ErrNotExist", err)
	}
}
