package main

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// full returns a transcript whose backlog is full, and a reader of what follows.
func full(t *testing.T) (*transcript.File, *transcript.Writer, *transcript.Reader) {
	t.Helper()
	f, err := transcript.Create(filepath.Join(t.TempDir(), "transcript"), transcript.Spec{Backlog: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	w, _, err := transcript.Attach(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	for piece := make([]byte, transcript.MostOutput); w.HasRoom(); {
		w.Output(piece)
	}
	r, _ := f.ReadFrom(0)
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return f, w, r
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// What a command has printed is stored at its end, though the backlog is full.
func TestFullBacklogDoesNotCostTheEnd(t *testing.T) {
	for title, tty := range map[string]bool{"of a pipe": false, "of a terminal": true} {
		t.Run(title, func(t *testing.T) {
			f, w, r := full(t)
			o, err := newOutput(w, tty)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(o.task, "the end"); err != nil {
				t.Fatal(err)
			}
			if tty { // each command has one of its own
				if err := o.task.Close(); err != nil {
					t.Fatal(err)
				}
			}
			o.sync()
			frame, err := r.Next()
			if want := "the end"; string(frame.Output) != want || err != nil {
				t.Errorf("read %q, %v, want %q", frame.Output, err, want)
			}
			_ = o.task.Close() // at the latest
			if err := f.Forget(r.At()); err != nil {
				t.Error(err)
			}
			<-o.ended
		})
	}
}

// Once a worker has logged what there is, the rest is stored.
func TestOutputGoesOnOnceThereIsRoom(t *testing.T) {
	f, w, r := full(t)
	o, err := newOutput(w, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(o.task, "more"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Forget(r.At()), o.task.Close()); err != nil {
		t.Fatal(err)
	}
	<-o.ended
	frame, err := r.Next()
	if want := "more"; string(frame.Output) != want || err != nil {
		t.Errorf("read %q, %v, want %q", frame.Output, err, want)
	}
}
