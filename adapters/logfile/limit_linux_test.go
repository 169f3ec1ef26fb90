package logfile_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// limited returns a recorder of logs whose files have most bytes.
func limited(tb testing.TB, dir string, most int64, tail int) *logfile.Recorder {
	tb.Helper()
	c := logfile.Config{Dir: dir, Tail: tail, Max: most, MaxSetting: "section.max"}
	r, err := logfile.New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

const limitCause = "it has reached the limit of 65050 bytes (section.max)"

// With enough memory, a log that has reached its limit lacks nothing.
func TestConformanceAtTheLimit(t *testing.T) {
	tasklogtest.Test(t, func(tb testing.TB) tasklog.Recorder {
		tb.Helper()
		return limited(tb, tb.TempDir(), 10, 8<<20)
	})
}

func TestLimit(t *testing.T) {
	const most, n = 65_050, 5000
	for name, dir := range map[string]string{"with a directory": t.TempDir(), "without": ""} {
		t.Run(name, func(t *testing.T) {
			r, err := limited(t, dir, most, tailSize).Record(id)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				write(t, r, line(i))
			}
			got := text(t, r)
			checkTruncated(t, got, n, limitCause)
			head, _, _ := strings.Cut(got, "\n[taskcluster:error] log truncated")
			if len(head) != most {
				t.Errorf("the head has %d bytes, want %d", len(head), most)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLogAsLongAsTheLimitIsWhole(t *testing.T) {
	r, err := limited(t, t.TempDir(), int64(10*len(line(0))), 1).Record(id)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 10 {
		write(t, r, line(i))
		want.WriteString(line(i))
	}
	if got := text(t, r); got != want.String() {
		t.Errorf("the log is %q", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A log that is resumed at its limit stays there: its tail was in memory, and
// the engine yields it again.
func TestResumedLogStaysAtItsLimit(t *testing.T) {
	for name, most := range map[string]int64{"the same limit": 65_050, "a lower one than before": 30_000} {
		t.Run(name, func(t *testing.T) {
			const n = 5000
			dir := t.TempDir()
			recorder := limited(t, dir, 65_050, tailSize)
			r, err := recorder.Record(id)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				r.Append([]byte(line(i)), tasklog.Position(i+1))
			}
			resumed, at, err := limited(t, dir, most, tailSize).Resume(id)
			if err != nil {
				t.Fatal(err)
			}
			if want := tasklog.Position(65_050 / len(line(0))); at != want {
				t.Errorf("resumed at %d, want %d", at, want)
			}
			for i := int(at); i < n; i++ {
				resumed.Append([]byte(line(i)), tasklog.Position(i+1))
			}
			checkTruncated(t, text(t, resumed), n, strings.Replace(limitCause, "65050", strconv.FormatInt(most, 10), 1))
			if s, err := os.Stat(filepath.Join(dir, "fN1SbArXTPSVFNUvaOlinQ.3.log")); err != nil || s.Size() > 65_050 {
				t.Errorf("the file has %d bytes, %v", s.Size(), err)
			}
			if err := errors.Join(resumed.Close(), r.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
