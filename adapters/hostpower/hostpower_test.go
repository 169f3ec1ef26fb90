//go:build unix

package hostpower

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shutdown takes the place of the system's program. It writes down its
// arguments, one in a line, unless it is to behave otherwise.
const shutdown = `#!/bin/sh
case $(cat "$0.behavior" 2>/dev/null) in
refuse) echo "shutdown: you are not root" >&2; exit 1;;
stall) exec sleep 600;;
*) printf '%s\n' "$@" >"$0.arguments";;
esac
`

// machine is a host whose shutdown program is a script.
type machine struct {
	*Host
	program string
}

func newMachine(tb testing.TB, action Action) *machine {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "shutdown")
	if err := os.WriteFile(program, []byte(shutdown), 0o700); err != nil {
		tb.Fatal(err)
	}
	h, err := New(Config{Action: action, Shutdown: program})
	if err != nil {
		tb.Fatal(err)
	}
	return &machine{h, program}
}

// arguments returns what the program was started with.
func (m *machine) arguments(tb testing.TB) string {
	tb.Helper()
	content, err := os.ReadFile(m.program + ".arguments")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return string(content)
}

// harness has a machine behave as the outside world does.
type harness struct{ machine *machine }

func (h harness) Host(testing.TB) interrupt.Host { return h.machine.Host }

func (h harness) Behave(tb testing.TB, b interrupttest.Behavior) {
	tb.Helper()
	word := map[interrupttest.Behavior]string{interrupttest.Refuse: "refuse", interrupttest.Stall: "stall"}[b]
	if err := os.WriteFile(h.machine.program+".behavior", []byte(word), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func (h harness) Retired(tb testing.TB) bool {
	tb.Helper()
	return h.machine.arguments(tb) != ""
}

func TestConforms(t *testing.T) {
	interrupttest.TestHost(t, func(tb testing.TB) interrupttest.HostHarness {
		tb.Helper()
		return harness{newMachine(tb, PowerOff)}
	})
}

func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		action    Action
		why, want string
	}{
		{PowerOff, "idle for 5m", "-h\nnow\ntaskcluster-worker: idle for 5m\n"},
		{Reboot, "after\n10 tasks", "-r\nnow\ntaskcluster-worker: after 10 tasks\n"},
		{Reboot, "-c", "-r\nnow\ntaskcluster-worker: -c\n"},
	} {
		t.Run(string(tt.action)+" "+tt.why, func(t *testing.T) {
			m := newMachine(t, tt.action)
			if err := m.Retire(t.Context(), tt.why); err != nil {
				t.Fatal(err)
			}
			if got := m.arguments(t); got != tt.want {
				t.Errorf("arguments are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSaysWhatKeepsTheHost(t *testing.T) {
	h := harness{newMachine(t, PowerOff)}
	h.Behave(t, interrupttest.Refuse)
	if err := h.machine.Retire(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "you are not root") {
		t.Errorf("returned %v, want what the program says", err)
	}
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	for want, cfg := range map[string]Config{
		`action "explode" is neither powerOff nor reboot`: {Action: "explode"},
		"/nowhere/shutdown": {Action: Reboot, Shutdown: "/nowhere/shutdown"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("returned %v, want %s", err, want)
		}
	}
}
