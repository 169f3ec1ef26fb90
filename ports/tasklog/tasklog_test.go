package tasklog_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// written returns what f writes to a log, at midnight of 1 January 2000.
func written(t *testing.T, f func(*tasklog.Log)) string {
	t.Helper()
	var b strings.Builder
	synctest.Test(t, func(*testing.T) { f(tasklog.New(&b)) })
	return b.String()
}

func TestLinesOfTheWorker(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func(*tasklog.Log)
		want string
	}{
		{
			"a message carries the time",
			func(l *tasklog.Log) { l.Infof("=== Task %s ===", "Starting") },
			"[taskcluster 2000-01-01T00:00:00.000Z] === Task Starting ===\n",
		},
		{
			"milliseconds are not rounded away",
			func(l *tasklog.Log) {
				<-time.After(1234567 * time.Microsecond)
				l.Warnf("slow")
			},
			"[taskcluster:warn 2000-01-01T00:00:01.234Z] slow\n",
		},
		{
			"an error carries no time",
			func(l *tasklog.Log) { l.Errorf("exit %d", 3) },
			"[taskcluster:error] exit 3\n",
		},
		{
			"every line of a message has the prefix, and trailing newlines are dropped",
			func(l *tasklog.Log) { l.Errorf("one\n\ntwo\n\n") },
			"[taskcluster:error] one\n[taskcluster:error] \n[taskcluster:error] two\n",
		},
		{
			"an empty message is a line",
			func(l *tasklog.Log) { l.Errorf("") },
			"[taskcluster:error] \n",
		},
		{
			"a line begins after the task's unfinished one",
			func(l *tasklog.Log) {
				_, _ = fmt.Fprint(l, "no newline")
				_, _ = l.Write(nil)
				l.Errorf("stop")
				l.Errorf("stop")
			},
			"no newline\n[taskcluster:error] stop\n[taskcluster:error] stop\n",
		},
		{
			"the task's output is not touched",
			func(l *tasklog.Log) {
				_, _ = fmt.Fprint(l, "a\r\x1b[1mb\x00\xff\n")
				l.Errorf("stop")
				_, _ = fmt.Fprint(l, "\n")
			},
			"a\r\x1b[1mb\x00\xff\n[taskcluster:error] stop\n\n",
		},
		{
			"a command is quoted as JSON",
			func(l *tasklog.Log) { l.Executing(1, []string{"sh", "-c", "echo \"<a>\" && true\n"}) },
			"[taskcluster 2000-01-01T00:00:00.000Z] Executing command 1: " +
				"[\"sh\",\"-c\",\"echo \\\"<a>\\\" && true\\n\"]\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, written(t, tt.f)); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExecuted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outcome tasklog.Outcome
		want    string
	}{
		{
			"a command that exited",
			tasklog.Outcome{
				User: 1500 * time.Millisecond, Kernel: 20 * time.Millisecond, Wall: 2 * time.Second,
				PeakMemory: 3 << 20, Result: "SUCCEEDED",
			},
			"   Exit Code: 0\n   User Time: 1.5s\n Kernel Time: 20ms\n   Wall Time: 2s\n Peak Memory: 3072 KiB\n      Result: SUCCEEDED\n",
		},
		{
			"a command that was killed, of unknown memory",
			tasklog.Outcome{ExitCode: -1, Signal: "killed", Wall: time.Minute, Result: "ABORTED"},
			"   Exit Code: -1 (killed)\n   User Time: 0s\n Kernel Time: 0s\n   Wall Time: 1m0s\n      Result: ABORTED\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := written(t, func(l *tasklog.Log) { l.Executed(tt.outcome) })
			want := ""
			for line := range strings.Lines(tt.want) {
				want += "[taskcluster 2000-01-01T00:00:00.000Z] " + line
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWritersTakeTurns(t *testing.T) {
	got := written(t, func(l *tasklog.Log) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					l.Errorf("whole")
					_, _ = fmt.Fprint(l, "output\n")
				}
			})
		}
		wg.Wait()
	})
	if want := 200; strings.Count(got, "[taskcluster:error] whole\n") != want || strings.Count(got, "output\n") != want {
		t.Errorf("lines are torn:\n%s", got)
	}
}

// Whatever a task writes, a line of the worker stands alone.
func FuzzLineStandsAlone(f *testing.F) {
	f.Add("output", "message")
	f.Add("output\n", "two\nlines")
	f.Add("", "\n")
	line := regexp.MustCompile(`^\[taskcluster:error\] `)
	f.Fuzz(func(t *testing.T, output, message string) {
		var b strings.Builder
		l := tasklog.New(&b)
		_, _ = l.Write([]byte(output))
		l.Errorf("%s", message)
		rest, ok := strings.CutPrefix(b.String(), output)
		if !ok {
			t.Fatalf("the task's output is changed: %q", b.String())
		}
		if output != "" && !strings.HasSuffix(output, "\n") {
			if rest, ok = strings.CutPrefix(rest, "\n"); !ok {
				t.Fatalf("the worker's line does not start anew: %q", b.String())
			}
		}
		for l := range strings.Lines(rest) {
			if !line.MatchString(l) || !strings.HasSuffix(l, "\n") {
				t.Fatalf("%q is not a line of the worker", l)
			}
		}
	})
}

// recording is one of which only what a Log needs is there.
type recording struct {
	tasklog.Recording
	pieces  []string
	midLine bool
}

func (r *recording) Append(p []byte, at tasklog.Position) {
	r.pieces = append(r.pieces, fmt.Sprintf("%d %s", at, p))
}

func (r *recording) MidLine() bool { return r.midLine }

func TestOutputHasPositions(t *testing.T) {
	r := &recording{midLine: true}
	l := tasklog.New(r)
	l.Reach(1, func(l *tasklog.Log) {
		l.Errorf("one")
		l.Errorf("two")
	})
	l.Output([]byte("three"), 6)
	l.Reach(7, func(l *tasklog.Log) { l.Errorf("four") })
	l.Reach(8, func(*tasklog.Log) {})
	want := []string{
		"1 \n[taskcluster:error] one\n[taskcluster:error] two\n", "6 three", "7 \n[taskcluster:error] four\n", "8 ",
	}
	if diff := cmp.Diff(want, r.pieces); diff != "" {
		t.Errorf("what is appended (-want +got):\n%s", diff)
	}
}

func TestOutputNeedsNoRecording(t *testing.T) {
	var b strings.Builder
	l := tasklog.New(&b)
	l.Output([]byte("one"), 3)
	l.Reach(4, func(l *tasklog.Log) { l.Errorf("two") })
	if got, want := b.String(), "one\n[taskcluster:error] two\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
}
