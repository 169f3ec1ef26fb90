package workerrunner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) {
	if os.Getenv(asReader) != "" {
		reader(os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

// welcome greets a worker as start-worker v44 does.
const welcome = `~{"type":"welcome","capabilities":["error-report","graceful-termination","log","new-credentials","shutdown"]}`

// end is the runner's end of the two pipes.
type end struct {
	*Runner
	said  *io.PipeWriter
	heard *bufio.Scanner
	log   *journal

	mu      sync.Mutex
	renewed []task.Credentials
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func newEnd(tb testing.TB, cfg Config) *end {
	tb.Helper()
	in, said := io.Pipe()
	heard, out := io.Pipe()
	e := &end{said: said, heard: bufio.NewScanner(heard), log: &journal{}}
	runner, shut := New(cfg, in, out, e.renew, slog.New(slog.NewTextHandler(e.log, nil)))
	e.Runner = runner
	tb.Cleanup(func() {
		_ = heard.CloseWithError(io.ErrClosedPipe)
		shut()
	})
	return e
}

func (e *end) renew(c task.Credentials) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewed = append(e.renewed, c)
}

// say sends lines to the worker.
func (e *end) say(tb testing.TB, lines ...string) {
	tb.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(e.said, line+"\n"); err != nil {
			tb.Error(err)
		}
	}
}

// hear returns the next line of the worker.
func (e *end) hear(tb testing.TB) string {
	tb.Helper()
	if !e.heard.Scan() {
		tb.Fatalf("the worker says no more: %v", e.heard.Err())
	}
	return e.heard.Text()
}

// greeted returns the runner's end of a connection that is agreed upon.
func greeted(tb testing.TB, cfg Config) *end {
	tb.Helper()
	e := newEnd(tb, cfg)
	go e.say(tb, welcome)
	e.hear(tb)
	return e
}

func TestGreeting(t *testing.T) {
	for _, tt := range []struct{ name, welcome, want string }{
		{
			"start-worker can do all that this worker can", welcome,
			`~{"capabilities":["graceful-termination","error-report","shutdown","new-credentials"],"type":"hello"}`,
		},
		{
			"a runner of another version can do something else",
			`~{"type":"welcome","capabilities":["graceful-termination","levitation"]}`,
			`~{"capabilities":["graceful-termination"],"type":"hello"}`,
		},
		{"a runner can do nothing", `~{"type":"welcome","capabilities":[]}`, `~{"capabilities":[],"type":"hello"}`},
		{"a runner does not say", `~{"type":"welcome"}`, `~{"capabilities":[],"type":"hello"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnd(t, Config{})
			go e.say(t, tt.welcome)
			if got := e.hear(t); got != tt.want {
				t.Errorf("greeted with %s, want %s", got, tt.want)
			}
		})
	}
}

func TestGreetingWithoutRenewal(t *testing.T) {
	in, said := io.Pipe()
	heard, out := io.Pipe()
	_, shut := New(Config{}, in, out, nil, slog.New(slog.DiscardHandler))
	defer shut()
	go func() { _, _ = io.WriteString(said, welcome+"\n") }()
	got, err := bufio.NewReader(heard).ReadString('\n')
	if err != nil || strings.Contains(got, "new-credentials") {
		t.Errorf("greeted with %s, %v", got, err)
	}
}

func TestIsGreetedOnce(t *testing.T) {
	e := greeted(t, Config{})
	go e.say(t, `~{"type":"welcome","capabilities":[]}`, `~{"type":"graceful-termination","finish-tasks":true}`)
	if _, err := e.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { _ = e.Shutdown(t.Context()) }()
	if got, want := e.hear(t), `~{"type":"shutdown"}`; got != want {
		t.Errorf("worker says %s, want %s", got, want)
	}
}

func TestNotices(t *testing.T) {
	const finish, stop = `~{"type":"graceful-termination","finish-tasks":true}`, `~{"type":"graceful-termination","finish-tasks":false}`
	for _, tt := range []struct {
		name  string
		lines []string
		gone  bool
		want  []interrupt.Notice // with deadlines as durations after the zero time
	}{
		{"tasks may finish", []string{finish}, false, []interrupt.Notice{{Cause: causeFinish}}},
		{"there is no time", []string{stop}, false, []interrupt.Notice{{Cause: causeStop, Deadline: time.Time{}.Add(time.Minute)}}},
		{"a runner that does not say leaves no time", []string{`~{"type":"graceful-termination"}`}, false, []interrupt.Notice{{Cause: causeStop, Deadline: time.Time{}.Add(time.Minute)}}},
		{"there is less and less time", []string{finish, finish, stop, finish, stop}, false, []interrupt.Notice{
			{Cause: causeFinish},
			{Cause: causeStop, Deadline: time.Time{}.Add(time.Minute)},
		}},
		{"the runner is killed", nil, true, []interrupt.Notice{{Cause: causeGone}}},
		{"the runner is killed after it has told the worker to stop", []string{stop}, true, []interrupt.Notice{{Cause: causeStop, Deadline: time.Time{}.Add(time.Minute)}}},
		{"a termination of another form is none", []string{`~{"type":"graceful-termination","finish-tasks":"yes"}`, `~["graceful-termination"]`, `{"type":"graceful-termination"}`, `~~{"type":"graceful-termination"}`}, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				e := greeted(t, Config{Grace: time.Minute})
				e.say(t, tt.lines...)
				if tt.gone {
					_ = e.said.Close()
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var got []interrupt.Notice
				for {
					n, err := e.Wait(ctx)
					if err != nil {
						break
					}
					if !n.Deadline.IsZero() {
						n.Deadline = time.Time{}.Add(n.Deadline.Sub(start))
					}
					got = append(got, n)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("notices (-want +got):\n%s\nlog:\n%s", diff, e.log)
				}
			})
		})
	}
}

// harness has the runner tell the worker to stop.
type harness struct {
	*end
	lines, causes []string
}

func (h *harness) Source(testing.TB) interrupt.Source { return h.Runner }

func (h *harness) Announce(tb testing.TB) string {
	tb.Helper()
	line, cause := h.lines[0], h.causes[0]
	h.lines, h.causes = h.lines[1:], h.causes[1:]
	if line == "" {
		_ = h.said.Close()
	} else {
		h.say(tb, line)
	}
	return cause
}

func TestConforms(t *testing.T) {
	interrupttest.Test(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		return &harness{
			end:    greeted(tb, Config{}),
			lines:  []string{`~{"type":"graceful-termination","finish-tasks":true}`, `~{"type":"graceful-termination","finish-tasks":false}`},
			causes: []string{causeFinish, causeStop},
		}
	})
}

func TestCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := greeted(t, Config{})
		e.say(
			t,
			`~{"type":"new-credentials","client-id":"worker/1","access-token":"s3cret-1","certificate":"{\"version\":1}"}`,
			`~{"type":"new-credentials","client-id":"worker/2","access-token":"s3cret-2"}`,
			`~{"type":"new-credentials","access-token":"s3cret-3"}`,
			`~{"type":"new-credentials","client-id":7,"access-token":"s3cret-4"}`,
			`~{"type":"new-credentials","client-id":"worker/5","access-token":"s3cret-5"`,
			`~{"type":"renewed","client-id":"worker/6","access-token":"s3cret-6"}`,
		)
		synctest.Wait()
		want := []task.Credentials{
			{ClientID: "worker/1", AccessToken: "s3cret-1", Certificate: `{"version":1}`},
			{ClientID: "worker/2", AccessToken: "s3cret-2"},
		}
		if diff := cmp.Diff(want, e.renewed); diff != "" {
			t.Errorf("credentials (-want +got):\n%s", diff)
		}
		if strings.Contains(e.log.String(), "s3cret") {
			t.Errorf("tokens are in the log:\n%s", e.log)
		}
	})
}

func TestOtherLinesAreLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := greeted(t, Config{})
		e.say(t, "a word of the runner", "", strings.Repeat("x", maxLine+10), "\xff and after", `~{"type":"graceful-termination","finish-tasks":true}`)
		synctest.Wait()
		for _, want := range []string{"a word of the runner", "\uFFFD and after"} {
			if !strings.Contains(e.log.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, e.log)
			}
		}
		if n, err := e.Wait(t.Context()); err != nil || n.Cause != causeFinish {
			t.Errorf("notice after that is %+v, %v", n, err)
		}
	})
}

func TestSends(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		send       func(context.Context, *Runner) error
	}{
		{
			"a report", `~{"description":"~{}\n","extra":{"bytes":1},"kind":"disk-full","title":"t","type":"error-report"}`,
			func(ctx context.Context, r *Runner) error {
				return r.ReportError(ctx, identity.Report{Kind: "disk-full", Title: "t", Description: "~{}\n", Extra: map[string]any{"bytes": 1}})
			},
		},
		{
			"a report without more", `~{"description":"d","extra":{},"kind":"k","title":"t","type":"error-report"}`,
			func(ctx context.Context, r *Runner) error {
				return r.ReportError(ctx, identity.Report{Kind: "k", Title: "t", Description: "d"})
			},
		},
		{"a shutdown", `~{"type":"shutdown"}`, func(ctx context.Context, r *Runner) error { return r.Shutdown(ctx) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnd(t, Config{})
			sent := make(chan error, 1)
			go func() { sent <- tt.send(t.Context(), e.Runner) }()
			go e.say(t, welcome)
			// Whatever is sent before the greeting waits for it.
			if got := e.hear(t); !strings.Contains(got, "hello") {
				t.Errorf("worker begins with %s", got)
			}
			if got := e.hear(t); got != tt.want {
				t.Errorf("worker says %s, want %s", got, tt.want)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSendFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		gone  bool
		want  error
	}{
		{"where the runner does not take reports", []string{`~{"type":"welcome","capabilities":["shutdown"]}`}, false, errors.ErrUnsupported},
		{"where the runner is gone", nil, true, errors.ErrUnsupported},
		{"where the runner never greets", []string{"hello?"}, false, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnd(t, Config{})
				go func() {
					for e.heard.Scan() {
					}
				}()
				e.say(t, tt.lines...)
				if tt.gone {
					_ = e.said.Close()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := e.ReportError(ctx, identity.Report{}); !errors.Is(err, tt.want) {
					t.Errorf("returned %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestRunnerThatHangsKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := greeted(t, Config{})
		for _, attempt := range []string{"whose write it keeps", "who waits for another"} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			began := time.Now()
			if err := e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: returned %v", attempt, err)
			}
			if took := time.Since(began); took != 30*time.Second {
				t.Errorf("%s: took %v", attempt, took)
			}
			cancel()
		}
	})
}

func TestSaysThatTheRunnerDoesNotListen(t *testing.T) {
	in, said := io.Pipe()
	heard, out := io.Pipe()
	r, shut := New(Config{}, in, out, nil, slog.New(slog.DiscardHandler))
	defer shut()
	_ = heard.Close()
	if _, err := io.WriteString(said, welcome+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown(t.Context()); err == nil {
		t.Error("returned no error although nobody listens")
	}
}

// FuzzListen has the runner say anything: the worker does not fail, greets at
// most once, and answers in whole messages.
func FuzzListen(f *testing.F) {
	for _, line := range []string{
		welcome, "", "~", "~{}", "~{\"type\":1}", `~{"type":"graceful-termination","finish-tasks":true}`,
		`~{"type":"new-credentials","client-id":"c","access-token":"t"}`, "log\r\n~\n{", "\x00\xff", "~null", `~{"type":"welcome","capabilities":[1]}`,
	} {
		f.Add([]byte(line + "\n" + welcome + "\n" + line))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		var heard bytes.Buffer
		r, shut := New(Config{}, io.NopCloser(bytes.NewReader(said)), &heard, func(c task.Credentials) {
			if c.ClientID == "" {
				t.Error("credentials are nobody's")
			}
		}, slog.New(slog.DiscardHandler))
		<-r.ended
		shut()
		var last interrupt.Notice
		for len(r.notices) > 0 {
			n := <-r.notices
			if last.Cause != "" && n.Deadline.IsZero() {
				t.Errorf("after %+v came %+v, which is no more urgent", last, n)
			}
			last = n
		}
		if last.Cause == "" {
			t.Error("the end of the runner was not noticed")
		}
		for i, line := range slices.Collect(bytes.Lines(heard.Bytes())) {
			var m map[string]any
			object, ok := bytes.CutPrefix(line, []byte("~"))
			if err := json.Unmarshal(object, &m); !ok || err != nil || i > 0 {
				t.Errorf("worker says %q, %v", line, err)
			}
			if diff := cmp.Diff([]string{"capabilities", "type"}, slices.Sorted(maps.Keys(m))); diff != "" {
				t.Errorf("hello (-want +got):\n%s", diff)
			}
		}
	})
}
