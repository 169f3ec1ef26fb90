package logfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 3}

const tailSize = 4 << 10

func newRecorder(tb testing.TB, dir string) *logfile.Recorder {
	tb.Helper()
	r, err := logfile.New(logfile.Config{Dir: dir, Tail: tailSize}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func record(tb testing.TB, dir string) tasklog.Recording {
	tb.Helper()
	r, err := newRecorder(tb, dir).Record(id)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// smallDisk returns a directory on a file system that holds size bytes.
func smallDisk(tb testing.TB, size string) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func TestConformance(t *testing.T) {
	tasklogtest.Test(t, func(tb testing.TB) tasklog.Recorder {
		tb.Helper()
		return newRecorder(tb, filepath.Join(tb.TempDir(), "to", "make"))
	})
}

func TestResume(t *testing.T) {
	tasklogtest.TestResume(t, func(tb testing.TB) tasklog.Recorder {
		tb.Helper()
		return newRecorder(tb, tb.TempDir())
	})
}

// With enough memory, a log without a file lacks nothing.
func TestConformanceInMemoryAlone(t *testing.T) {
	tasklogtest.Test(t, func(tb testing.TB) tasklog.Recorder {
		tb.Helper()
		dir := filepath.Join(tb.TempDir(), "gone")
		r, err := logfile.New(logfile.Config{Dir: dir, Tail: 8 << 20}, slog.New(slog.DiscardHandler))
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.Remove(dir); err != nil {
			tb.Fatal(err)
		}
		return r
	})
}

func TestNothingIsLeftBehindWithoutADirectory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	r := record(t, "")
	write(t, r, "secret\n")
	// As after a crash: nobody has closed it.
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v left behind", left, err)
	}
	if got := text(t, r); got != "secret\n" {
		t.Errorf("log is %q", got)
	}
}

func TestNewNeedsADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := logfile.New(logfile.Config{Dir: file}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file passes for a directory")
	}
}

func write(tb testing.TB, w io.Writer, s string) {
	tb.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		tb.Fatalf("Write of %d bytes returned %d, %v", len(s), n, err)
	}
}

func text(tb testing.TB, r tasklog.Recording) string {
	tb.Helper()
	f, err := r.Open()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func line(i int) string { return fmt.Sprintf("%06d %s\n", i, strings.Repeat("x", 92)) }

// checkTruncated checks that a log of n lines has its head, a note that accounts
// for everything between, and its tail.
func checkTruncated(t *testing.T, got string, n int, cause string) {
	t.Helper()
	head, rest, ok := strings.Cut(got, "[taskcluster:error] log truncated: "+cause+", ")
	if !ok {
		t.Fatalf("log of %d bytes says nothing of %q", len(got), cause)
	}
	var dropped int
	if _, err := fmt.Sscanf(rest, "%d bytes dropped\n", &dropped); err != nil {
		t.Fatalf("note goes on with %.50q: %v", rest, err)
	}
	_, tail, _ := strings.Cut(rest, "\n")
	var all strings.Builder
	for i := range n {
		all.WriteString(line(i))
	}
	written := all.String()
	if !strings.HasPrefix(written, head) {
		if head = strings.TrimSuffix(head, "\n"); !strings.HasPrefix(written, head) {
			t.Errorf("head of %d bytes is not what was written", len(head))
		}
	}
	if !strings.HasSuffix(written, tail) || len(tail) < tailSize-len(line(0)) || !strings.HasSuffix(tail, line(n-1)) {
		t.Errorf("tail of %d bytes is not what was written last", len(tail))
	}
	if tail != "" && strings.Index(tail, "\n") != len(line(0))-1 {
		t.Errorf("tail begins within a line: %.120q", tail)
	}
	if len(head)+dropped+len(tail) != len(written) {
		t.Errorf("%d bytes of head, %d dropped and %d of tail are not the %d written", len(head), dropped, len(tail), len(written))
	}
	if strings.Count(got, "log truncated") != 1 {
		t.Error("more than one note")
	}
}

func TestFullDisk(t *testing.T) {
	const n = 5000
	r := record(t, smallDisk(t, "64k"))
	for i := range n {
		write(t, r, line(i))
	}
	if err := r.Seal(); err != nil {
		t.Fatal(err)
	}
	got := text(t, r)
	checkTruncated(t, got, n, "no space left on device")
	if !strings.HasPrefix(got, line(0)) || len(got) < 64<<10 {
		t.Errorf("log of %d bytes lacks its head", len(got))
	}

	late, err := r.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	followed, err := io.ReadAll(late)
	if err := errors.Join(err, late.Close()); err != nil {
		t.Fatal(err)
	}
	if string(followed) != got {
		t.Error("a follower gets another log than Open")
	}
}

func TestFullDiskThatCostsNothing(t *testing.T) {
	r := record(t, smallDisk(t, "16k"))
	var want strings.Builder
	for i := range (16<<10 + tailSize) / len(line(0)) {
		write(t, r, line(i))
		want.WriteString(line(i))
	}
	if got := text(t, r); got != want.String() {
		t.Errorf("log of %d bytes has changed to %d", want.Len(), len(got))
	}
}

func TestNoFileAtAll(t *testing.T) {
	const n = 500
	dir := filepath.Join(t.TempDir(), "gone")
	recorder := newRecorder(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	r, err := recorder.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		write(t, r, line(i))
	}
	checkTruncated(t, text(t, r), n, "no such file or directory")
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

func TestLongWritesOnAFullDisk(t *testing.T) {
	const n = 3000
	r := record(t, smallDisk(t, "16k"))
	var all strings.Builder
	for i := range n {
		all.WriteString(line(i))
	}
	write(t, r, all.String())
	checkTruncated(t, text(t, r), n, "no space left on device")
}

// A reader that keeps up with the task misses nothing, wherever it is kept.
func TestFollowThroughAFullDisk(t *testing.T) {
	r := record(t, smallDisk(t, "16k"))
	f, err := r.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 1000 {
		write(t, r, line(i))
		want.WriteString(line(i))
		got := make([]byte, len(line(i)))
		if _, err := io.ReadFull(f, got); err != nil || string(got) != line(i) {
			t.Fatalf("line %d: %q, %v", i, got, err)
		}
	}
	// Then it stalls, and misses some.
	for i := range 1000 {
		write(t, r, line(1000+i))
	}
	write(t, r, "end")
	if err := r.Seal(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	note, tail, _ := strings.Cut(string(rest), "\n")
	if !strings.HasPrefix(note, "[taskcluster:error] log truncated: no space left on device, ") || !strings.HasSuffix(tail, line(1999)+"end") {
		t.Errorf("after a stall the follower gets %.200q … of %d bytes", rest, len(rest))
	}
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	r := record(t, t.TempDir())
	f, err := r.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.Read(make([]byte, 1))
		done <- err
	}()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestReadersAndWriters(t *testing.T) {
	const n = 2000
	r := record(t, smallDisk(t, "32k"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			f, err := r.Follow(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Error(err)
			}
			if !strings.HasPrefix(string(got), line(0)) || !strings.HasSuffix(string(got), line(n-1)) {
				t.Errorf("a follower lacks head or tail of the log, and has %d bytes", len(got))
			}
		})
	}
	for i := range n {
		write(t, r, line(i))
	}
	if err := r.Seal(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func BenchmarkWrite(b *testing.B) {
	r := record(b, b.TempDir())
	p := []byte(line(1))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		_, _ = r.Write(p)
	}
}
