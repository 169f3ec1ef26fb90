package main

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

func record(t *testing.T, f *follower, run int) tasklog.Recording {
	t.Helper()
	r, err := f.Record(task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: run})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A follower is a recorder like any other.
func TestFollowerConforms(t *testing.T) {
	tasklogtest.Test(t, func(tb testing.TB) tasklog.Recorder {
		tb.Helper()
		return newFollower(tb.Context(), new(tasklogtest.Memory), io.Discard)
	})
}

func TestFollowerCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		f := newFollower(t.Context(), new(tasklogtest.Memory), &out)
		first, second := record(t, f, 0), record(t, f, 1)
		write := func(r tasklog.Recording, text string) {
			if _, err := io.WriteString(r, text); err != nil {
				t.Error(err)
			}
		}
		expect := func(want string) {
			synctest.Wait()
			if got := out.String(); got != want {
				t.Errorf("copy is %q, want %q", got, want)
			}
		}
		write(first, "one\n")
		expect("one\n")
		write(second, "two\n")
		expect("one\n") // the first recording is not over
		write(first, "more\n")
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		expect("one\nmore\ntwo\n")
		write(second, "end\n")
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		<-f.finished()
		expect("one\nmore\ntwo\nend\n")
	})
}

// A writer that stalls holds up neither who writes to the recording, nor who
// closes it, and loses nothing.
func TestFollowerOfStalledWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, out := io.Pipe()
		f := newFollower(t.Context(), new(tasklogtest.Memory), out)
		r := record(t, f, 0)
		want := bytes.Repeat([]byte("0123456789"), 100_000)
		if _, err := r.Write(want); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		select {
		case <-f.finished():
			t.Error("the copy is finished before it is read")
		default:
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(reader, got); err != nil {
			t.Error(err)
		}
		<-f.finished()
		if !bytes.Equal(got, want) {
			t.Error("the copy is not what was written")
		}
	})
}

func TestFollowerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFollower(ctx, new(tasklogtest.Memory), io.Discard)
		r := record(t, f, 0)
		cancel()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		<-f.finished()
	})
}
