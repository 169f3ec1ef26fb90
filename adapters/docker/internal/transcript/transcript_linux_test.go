package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func create(tb testing.TB, s Spec) (*File, *Writer) {
	tb.Helper()
	f, err := Create(filepath.Join(tb.TempDir(), "transcript"), s)
	if err != nil {
		tb.Fatal(err)
	}
	w, got, err := Attach(f.Path())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(f.Close(), w.f.Close()); err != nil {
			tb.Error(err)
		}
	})
	if diff := cmp.Diff(s, got); diff != "" {
		tb.Errorf("the first process is told to do something else (-want +got):\n%s", diff)
	}
	return f, w
}

// all returns what a reader finds, one line for each frame.
func all(tb testing.TB, r *Reader) string {
	tb.Helper()
	var b strings.Builder
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			tb.Fatal(err)
		}
		switch {
		case f.Event == nil:
			fmt.Fprintf(&b, "output %s\n", f.Output)
		case f.Event.Executing != nil:
			fmt.Fprintf(&b, "executing %d\n", *f.Event.Executing)
		case f.Event.Executed != nil:
			fmt.Fprintf(&b, "executed %d: %d\n", f.Event.Executed.Index, f.Event.Executed.ExitCode)
		}
	}
}

func TestReaderGoesOnWhereAnotherWas(t *testing.T) {
	f, w := create(t, Spec{Commands: [][]string{{"a", "b"}, {"c"}}, TTY: true, Patience: time.Minute})
	zero := 0
	w.Event(Event{Executing: &zero})
	w.Output([]byte("one"))
	first, lost := f.ReadFrom(0)
	if got, want := all(t, first), "executing 0\noutput one\n"; got != want || lost != 0 {
		t.Errorf("read %q after losing %d, want %q", got, lost, want)
	}
	w.Output([]byte("two"))
	w.Event(Event{Executed: &Executed{Index: 0}})
	next, err := Open(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	second, lost := next.ReadFrom(first.At())
	for _, r := range []*Reader{first, second} {
		if got, want := all(t, r), "output two\nexecuted 0: 0\n"; got != want || lost != 0 {
			t.Errorf("read %q after losing %d, want %q", got, lost, want)
		}
	}
	if done, err := next.Done(); done != nil || err != nil {
		t.Errorf("the task has ended: %v, %v", done, err)
	}
	want := &Done{Last: Executed{Index: 1, ExitCode: 3, Failed: strings.Repeat("\x01", 300) + "...", Wall: time.Second}, Signaled: true}
	end := *want
	end.Last.Failed = strings.Repeat("\x01", 10_000) // which takes six times as much
	if err := w.Done(end); err != nil {
		t.Fatal(err)
	}
	done, err := next.Done()
	if diff := cmp.Diff(want, done); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got := all(t, second); got != "" {
		t.Errorf("the end has added %q", got)
	}
}

func TestWhatIsForgottenTakesNoRoom(t *testing.T) {
	f, w := create(t, Spec{Commands: [][]string{{"a"}}})
	piece := bytes.Repeat([]byte("x"), MostOutput)
	const pieces = 1024 // 64 MiB
	r, _ := f.ReadFrom(0)
	for range pieces {
		w.Output(piece)
		if frame, err := r.Next(); err != nil || !bytes.Equal(frame.Output, piece) {
			t.Fatalf("read %d bytes, %v", len(frame.Output), err)
		}
		if err := f.Forget(r.At()); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(f.Path(), &st); err != nil {
			t.Fatal(err)
		}
		if used := st.Blocks * 512; used > 2*forgetPiece {
			t.Fatalf("%d bytes of %d take room", used, st.Size)
		}
	}
	// The next worker has another log.
	next, err := Open(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	w.Output([]byte("last"))
	again, lost := next.ReadFrom(0)
	if got := all(t, again); !strings.HasSuffix(got, "output last\n") || lost < 32<<20 {
		t.Errorf("after losing %d bytes, read %d that end with %q", lost, len(got), got[max(0, len(got)-20):])
	}
}

func TestBacklogHasRoomForWhatIsNotForgotten(t *testing.T) {
	piece := bytes.Repeat([]byte("x"), MostOutput)
	const pieces = 2*forgetPiece/mostFrame + 1
	for _, tt := range []struct {
		title   string
		backlog int64
		want    bool // room for one more
	}{
		{"no limit, as a worker of the version before has it", 0, true},
		{"the least limit", 1, false},
		{"a greater one", 2*forgetPiece + 2*mostFrame, true},
	} {
		t.Run(tt.title, func(t *testing.T) {
			f, w := create(t, Spec{Commands: [][]string{{"a"}}, Backlog: tt.backlog})
			for range pieces {
				if !w.HasRoom() {
					t.Fatal("there is no room for what is to be forgotten at a time")
				}
				w.Output(piece)
			}
			if got := w.HasRoom(); got != tt.want {
				t.Errorf("room for one more: %t, want %t", got, tt.want)
			}
			if err := f.Forget(specAt + forgetPiece + mostFrame); err != nil {
				t.Fatal(err)
			}
			if !w.HasRoom() {
				t.Error("there is no room, though something was forgotten")
			}
		})
	}
}

func TestFullDiskDropsOutputButNotTheEnd(t *testing.T) {
	f, w := create(t, Spec{Commands: [][]string{{"a"}}})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Output([]byte("kept"))
	disk := w.f
	w.f = full
	w.Output([]byte("dropped"))
	w.f = disk
	w.Output([]byte("kept, too"))
	if err := errors.Join(full.Close(), w.Done(Done{})); err != nil {
		t.Fatal(err)
	}
	r, _ := f.ReadFrom(0)
	if got, want := all(t, r), "output kept\noutput kept, too\n"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	done, err := f.Done()
	if err != nil || done.Dropped != int64(len("dropped")) || !strings.Contains(done.Cause, "no space left on device") {
		t.Errorf("the end is %+v, %v", done, err)
	}
}

// A disk that becomes full amid a frame takes a part of it, in whose place the
// next frames come to be.
func TestFrameThatIsStoredInPartLeavesNothing(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f, err := Create(filepath.Join(disk, "transcript"), Spec{Commands: [][]string{{"a"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	w, _, err := Attach(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.f.Close() }()
	w.Output(bytes.Repeat([]byte("x"), MostOutput))
	w.Output([]byte("kept"))
	if err := w.Done(Done{}); err != nil {
		t.Fatal(err)
	}
	r, _ := f.ReadFrom(0)
	if got, want := all(t, r), "output kept\n"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	if done, err := f.Done(); err != nil || done.Dropped != MostOutput {
		t.Errorf("the end is %+v, %v", done, err)
	}
}

func TestWhatTheSidesTellEachOther(t *testing.T) {
	f, err := Create(filepath.Join(t.TempDir(), "transcript"), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	w, _, err := Attach(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.f.Close() }()
	if w.MayGo() || f.Gone() || f.Stopped() || f.Killed() {
		t.Error("something was told before")
	}
	beat := w.Beat()
	if err := errors.Join(f.Go(), f.Stop(), f.Kill(), f.Beat()); err != nil {
		t.Fatal(err)
	}
	if !w.MayGo() || !f.Gone() || !f.Stopped() || !f.Killed() || w.Beat() == beat {
		t.Error("something was not told")
	}
}

// A task can write what it likes to its transcript.
func TestTruncatedTranscriptIsDamaged(t *testing.T) {
	f, w := create(t, Spec{Commands: [][]string{{"a"}}})
	if err := w.Done(Done{}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{doneAt + 1, doneSizeAt, 0} {
		if err := os.Truncate(f.Path(), size); err != nil {
			t.Fatal(err)
		}
		if done, err := f.Done(); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes, it says %v, %v", size, done, err)
		}
	}
}

func FuzzHostileTranscript(f *testing.F) {
	dir := f.TempDir()
	good, err := Create(filepath.Join(dir, "good"), Spec{Commands: [][]string{{"a"}}})
	if err != nil {
		f.Fatal(err)
	}
	w, _, err := Attach(good.Path())
	if err != nil {
		f.Fatal(err)
	}
	zero := 0
	w.Event(Event{Executing: &zero})
	w.Output([]byte("output"))
	if err := errors.Join(w.Done(Done{}), w.f.Close(), good.Close()); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(good.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, int64(0))
	f.Add(seed[:specAt+3], int64(1))
	f.Add(append(bytes.Clone(seed), 'o', 0xff, 0xff, 0xff, 0xff), int64(len(seed)))
	f.Fuzz(func(t *testing.T, content []byte, at int64) {
		path := filepath.Join(t.TempDir(), "transcript")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := Open(path)
		if err != nil {
			return
		}
		defer func() { _ = file.Close() }()
		_, _ = file.Done() // any answer will do
		r, _ := file.ReadFrom(at)
		var read int64
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			if read += frameHeader; read > int64(len(content)) || len(frame.Output) > MostOutput {
				t.Fatalf("read more than there is: a frame of %d bytes", len(frame.Output))
			}
		}
	})
}

// TestTaskIsBoundToItsWorker has a first process learn of the end of the worker,
// and of nothing where it cannot.
func TestTaskIsBoundToItsWorker(t *testing.T) {
	if _, w := create(t, Spec{Commands: [][]string{{"a"}}}); w.WorkerSeen() {
		t.Error("a worker is seen that has not locked the file")
	}
	f, err := Create(filepath.Join(t.TempDir(), "transcript"), Spec{Bound: true})
	if err != nil {
		t.Fatal(err)
	}
	w, spec, err := Attach(f.Path())
	if err != nil || !spec.Bound {
		t.Fatalf("the first process is told %+v, %v", spec, err)
	}
	if !w.WorkerSeen() {
		t.Error("the worker that has locked the file is not seen")
	}
	ended := make(chan error, 1)
	go func() { ended <- w.AwaitWorkersEnd() }()
	awaitWaiter(t, f.f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the end of the worker is not seen: %v", err)
	}
	if w.WorkerSeen() {
		t.Error("a worker is seen that has ended")
	}
	if err := w.f.Close(); err != nil {
		t.Error(err)
	}
}

// awaitWaiter waits until somebody waits for the lock of a file.
func awaitWaiter(t *testing.T, f *os.File) {
	t.Helper()
	s, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", s.Sys().(*syscall.Stat_t).Ino)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, inode) {
				return
			}
		}
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal("nobody waits for the lock")
		}
	}
}
