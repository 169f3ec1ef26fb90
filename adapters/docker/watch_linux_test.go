package docker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A task that watches as many files as the kernel lets the user root watch must
// not keep other tasks from their logs.
func TestFilesAreWatchedWhereTasksHaveUsedUpWhatCanBe(t *testing.T) {
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	path := filepath.Join(t.TempDir(), "transcript")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	add := w.add
	for _, tt := range []struct {
		title string
		add   func(string) (int, error)
	}{
		{"none is used", add},
		{"all are used", func(string) (int, error) { return -1, unix.ENOSPC }},
	} {
		t.Run(tt.title, func(t *testing.T) {
			w.add = tt.add
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
