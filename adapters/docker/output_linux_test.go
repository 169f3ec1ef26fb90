package docker

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// chatter is the log of a task that prints more whenever something is in it.
type chatter struct {
	print func()
}

func (c chatter) Write(p []byte) (int, error) {
	c.print()
	return len(p), nil
}

// TestTaskThatNeverPauses prints faster than its output is read, so that there is
// always more.
func TestTaskThatNeverPauses(t *testing.T) {
	file, err := transcript.Create(filepath.Join(t.TempDir(), "transcript"),
		transcript.Spec{Commands: [][]string{{"a"}}, Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	w, _, err := transcript.Attach(file.Path())
	if err != nil {
		t.Fatal(err)
	}
	beat, told := w.Beat(), false
	piece := bytes.Repeat([]byte("x"), transcript.MostOutput)
	const most, least = 128 << 20, 64 << 20
	printed := 0
	more := func() {
		if told = told || w.Beat() != beat; printed < least || !told && printed < most {
			w.Output(piece)
			printed += len(piece)
		}
	}
	more()
	reader, _ := file.ReadFrom(0)
	ended := make(chan struct{})
	tr := &transcriber{
		e: &Engine{log: slog.New(slog.DiscardHandler)}, log: tasklog.New(chatter{func() {
			more()
			var st syscall.Stat_t
			if err := syscall.Stat(file.Path(), &st); err != nil || st.Blocks*512 > least/2 {
				t.Errorf("%d bytes take room: %v", st.Blocks*512, err)
			}
		}}),
		file: file, reader: reader, changed: make(chan struct{}), stop: func() {}, finished: make(chan struct{}),
	}
	close(ended)
	tr.run(t.Context(), ended)
	if !told || tr.err != nil {
		t.Errorf("after %d bytes, the task is not told that its worker is there: %v", printed, tr.err)
	}
}
