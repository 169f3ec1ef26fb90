package docker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A task that watches as many files as the kernel lets the user root watch, or as
// often, must not keep other tasks from their logs, nor the worker from starting.
func TestFilesAreWatchedWhereTasksHaveUsedUpWhatCanBe(t *testing.T) {
	exhausted := func(err error) func(string) (int, error) {
		return func(string) (int, error) { return -1, err }
	}
	for _, tt := range []struct {
		title string
		init  func(int) (int, error)
		add   func(string) (int, error) // nil for the kernel's
	}{
		{"none is used", unix.InotifyInit1, nil},
		{"all watches are used", unix.InotifyInit1, exhausted(unix.ENOSPC)},
		{"the kernel has no memory for a watch", unix.InotifyInit1, exhausted(unix.ENOMEM)},
		{"all instances are used", func(int) (int, error) { return -1, unix.EMFILE }, nil},
		{"no more files can be opened", func(int) (int, error) { return -1, unix.ENFILE }, nil},
	} {
		t.Run(tt.title, func(t *testing.T) {
			w, err := watcherBy(tt.init)
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			if tt.add != nil {
				w.add = tt.add
			}
			path := filepath.Join(t.TempDir(), "transcript")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			changed, stop, err := w.watch(path)
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			if err := os.WriteFile(path, []byte("more"), 0o600); err != nil {
				t.Fatal(err)
			}
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Error("nobody tells that the file has grown")
			}
		})
	}
}
