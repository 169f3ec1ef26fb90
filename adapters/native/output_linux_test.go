package native

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// awaitOutput waits until something is so of how much output there is of a task,
// and how much of the disk it takes.
func awaitOutput(tb testing.TB, dir, what string, isSo func(size, used int64) bool) {
	tb.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, outputName), &st); err != nil {
			tb.Fatal(err)
		}
		if isSo(st.Size, st.Blocks*512) {
			return
		}
		select {
		case <-poll.C:
		case <-tb.Context().Done():
			tb.Fatalf("it is never so that %s", what)
		}
	}
}

// printAndWait is a command that prints as many x as it is told, and after that a
// line with "more" once there is a file of this name.
func printAndWait(size int) []string {
	return []string{
		"sh", "-c",
		fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; echo; while [ ! -e more ]; do sleep 0.01; done; echo more", size),
	}
}

func goOn(tb testing.TB, dir string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, workName, "more"), nil, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// TestOutputThatIsInTheLogTakesNoRoom has three workers follow a task: the second
// has the log of the first, and the third has not.
func TestOutputThatIsInTheLogTakesNoRoom(t *testing.T) {
	const size = 5 * forgetPiece / 2
	e := open(t, Config{})
	var logs tasklogtest.Memory
	var id task.RunID
	recording, err := logs.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.NewBuilder(t.Context(), engine.Options{
		Payload: payloadOf(t, []string{"true"}, printAndWait(size)),
		Log:     tasklog.New(recording),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := s.(*sandbox).berth.dir
	awaitOutput(t, dir, "what is in the log is freed", func(written, used int64) bool {
		return written > size && used <= forgetPiece
	})

	e = detach(t, e)
	resumed, at, err := logs.Resume(id)
	if err != nil {
		t.Fatal(err)
	}
	reattach(t, e, tasklog.New(resumed), at)
	awaitTrue(t, "the second worker has logged what there is", func() bool { return len(logs.Text(id)) > size })

	e = detach(t, e)
	late := &safeBuffer{}
	third := reattach(t, e, tasklog.New(late), 0)
	goOn(t, dir)
	if r := wait(t, third); !r.Result().Success {
		t.Errorf("the result is %+v", r.Result())
	}
	if log := logs.Text(id); !strings.Contains(log, strings.Repeat("x", size)+"\n") || strings.Contains(log, "lost") {
		t.Errorf("the log of %d bytes that goes on lacks some of %d", len(log), size)
	}
	log := late.String()
	_, rest, ok := strings.Cut(log, "the log of an earlier worker is lost, with ")
	var lost int
	if _, err := fmt.Sscanf(rest, "%d bytes of output\n", &lost); !ok || err != nil {
		t.Fatalf("the log says nothing of what is lost: %.500s", log)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	if want := strings.Repeat("x", size-lost) + "\nmore\n"; !strings.HasPrefix(rest, want) || lost < forgetPiece {
		t.Errorf("after %d bytes that are lost, the log lacks some of the rest of %d: %.500s", lost, size, rest)
	}
	if strings.Count(log, "Executing command 0") != 1 || strings.Count(log, "Exit Code: 0") != 2 {
		t.Errorf("lines about the commands are not there once: %.500s", log)
	}
}

// Not all file systems can free a part of a file. On those, nothing is lost.
func TestOutputThatCannotBeFreedStays(t *testing.T) {
	const size = forgetPiece + 1<<20
	disk := t.TempDir()
	if err := unix.Mount("ramfs", disk, "ramfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := open(t, Config{Dir: filepath.Join(disk, "worker")})
	first := &safeBuffer{}
	s := start(t, e, first, printAndWait(size))
	dir := s.(*sandbox).berth.dir
	first.await(t, "x\n")
	e = detach(t, e)
	late := &safeBuffer{}
	next := reattach(t, e, tasklog.New(late), 0)
	goOn(t, dir)
	if r := wait(t, next); !r.Result().Success {
		t.Errorf("the result is %+v", r.Result())
	}
	if log := late.String(); !strings.Contains(log, "\n"+strings.Repeat("x", size)+"\nmore\n") || strings.Contains(log, "lost") {
		t.Errorf("the log of %d bytes lacks some of %d", len(log), size)
	}
}

// A log at its limit has its tail in memory, so that the next worker begins where
// the file ends, with output that may be gone.
func TestLogAtItsLimitIsResumed(t *testing.T) {
	const most, size = 1 << 20, 2*forgetPiece + 1<<20
	e := open(t, Config{})
	logs, err := logfile.New(logfile.Config{Dir: t.TempDir(), Max: most, MaxSetting: "max"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var id task.RunID
	first, err := logs.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.NewBuilder(t.Context(), optionsWith(t, first, printAndWait(size)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := s.(*sandbox).berth.dir
	awaitOutput(t, dir, "what is in the log is freed", func(written, used int64) bool {
		return written > size && used <= forgetPiece
	})
	e = detach(t, e)
	resumed, at, err := logs.Resume(id)
	if err != nil {
		t.Fatal(err)
	}
	next := reattach(t, e, tasklog.New(resumed), at)
	goOn(t, dir)
	if r := wait(t, next); !r.Result().Success {
		t.Errorf("the result is %+v", r.Result())
	}
	f, err := resumed.Open()
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), resumed.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(log), "\n[taskcluster:error] log truncated: it has reached the limit of 1048576 bytes (max), ")
	if len(head) != most || !strings.HasSuffix(head, "xxx") || !strings.Contains(rest, "x\nmore\n[taskcluster") {
		t.Errorf("of the log, the head has %d bytes, and the tail begins with %.500s", len(head), rest)
	}
}

// BenchmarkOutput has tasks print a GiB each, into logs on the disk.
func BenchmarkOutput(b *testing.B) {
	const size = 1 << 30
	e := open(b, Config{})
	logs, err := logfile.New(logfile.Config{Dir: b.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		recording, err := logs.Record(task.RunID{})
		if err != nil {
			b.Fatal(err)
		}
		build, err := e.NewBuilder(b.Context(), optionsWith(b, recording, []string{"head", "-c", strconv.Itoa(size), "/dev/zero"}))
		if err != nil {
			b.Fatal(err)
		}
		s, err := build.Start(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		r := wait(b, s)
		if err := errors.Join(r.Close(), recording.Close()); err != nil || !r.Result().Success {
			b.Fatalf("the result is %+v, %v", r.Result(), err)
		}
	}
}
