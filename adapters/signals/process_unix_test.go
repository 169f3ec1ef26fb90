//go:build unix

package signals

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

// asWorker makes the test binary behave as a worker does.
const asWorker = "SIGNALS_TEST_AS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		worker(os.Stdin, os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

// worker takes two interruptions, then gives signals back their effect, and
// waits for the end of its input.
func worker(in io.Reader, out io.Writer) {
	s, release := New(Config{Grace: time.Hour}, Catch())
	fmt.Fprintln(out, "ready")
	for range 2 {
		n, err := s.Wait(context.Background())
		fmt.Fprintln(out, n.Cause, n.Deadline.IsZero(), err)
	}
	release()
	fmt.Fprintln(out, "released")
	_, _ = io.Copy(io.Discard, in)
}

// harness sends signals to the process of the test.
type harness struct {
	source  *Source
	signals []syscall.Signal
}

func (h *harness) Source(testing.TB) interrupt.Source { return h.source }

func (h *harness) Announce(tb testing.TB) string {
	tb.Helper()
	sig := h.signals[0]
	h.signals = h.signals[1:]
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		tb.Fatal(err)
	}
	return name(sig)
}

func TestConforms(t *testing.T) {
	for _, tt := range []struct {
		name    string
		signals []syscall.Signal
	}{
		{"finish, then stop", []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM}},
		{"stop, then hurry", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			interrupttest.Test(t, func(tb testing.TB) interrupttest.Harness {
				tb.Helper()
				s, release := New(Config{}, Catch())
				tb.Cleanup(release)
				return &harness{s, tt.signals}
			})
		})
	}
}

func TestFinish(t *testing.T) {
	for _, tt := range []struct {
		name    string
		signals []os.Signal
		want    func(start time.Time) []interrupt.Notice
	}{
		{
			"SIGUSR1 lets tasks finish, SIGTERM may still stop them",
			[]os.Signal{syscall.SIGUSR1, syscall.SIGUSR1, syscall.SIGTERM},
			func(start time.Time) []interrupt.Notice {
				return []interrupt.Notice{{Cause: "SIGUSR1"}, {Cause: "SIGTERM", Deadline: start.Add(32 * time.Second)}}
			},
		},
		{
			"SIGUSR1 takes nothing back",
			[]os.Signal{syscall.SIGTERM, syscall.SIGUSR1},
			func(start time.Time) []interrupt.Notice {
				return []interrupt.Notice{{Cause: "SIGTERM", Deadline: start.Add(30 * time.Second)}}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if diff := cmp.Diff(tt.want(start), announced(t, Config{}, tt.signals)); diff != "" {
					t.Errorf("notices (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A process of its own, because the last of the signals ends it.
func TestProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asWorker+"=1")
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for _, step := range []struct {
		want string
		then syscall.Signal
	}{
		{"ready", syscall.SIGUSR1},
		{"SIGUSR1 true <nil>", syscall.SIGTERM},
		{"SIGTERM false <nil>", 0},
		{"released", syscall.SIGTERM},
	} {
		if !lines.Scan() || lines.Text() != step.want {
			t.Errorf("process wrote %q, want %q", lines.Text(), step.want)
			break
		}
		if err := cmd.Process.Signal(step.then); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("process ended as %v, want by SIGTERM", cmd.ProcessState)
	}
}
