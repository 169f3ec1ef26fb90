package native

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/engine/enginetest"
)

func TestConformance(t *testing.T) {
	enginetest.Test(t, func(tb testing.TB) enginetest.Harness {
		tb.Helper()
		return &harness{open(tb, Config{Capacity: 2})}
	})
}

// TestConformanceOfTasksThatTerminate runs the suite with a time between
// SIGTERM and SIGKILL.
func TestConformanceOfTasksThatTerminate(t *testing.T) {
	enginetest.Test(t, func(tb testing.TB) enginetest.Harness {
		tb.Helper()
		return &harness{open(tb, Config{Capacity: 2, Grace: 50 * time.Millisecond, NoNewPrivileges: true})}
	})
}

// harness has a shell take the steps.
type harness struct{ e *Engine }

func (h *harness) Engine(testing.TB) engine.Engine { return h.e }
func (h *harness) Abilities() enginetest.Abilities {
	return enginetest.Abilities{Reattach: true, Interrupts: true}
}

func (h *harness) Reopen(tb testing.TB) engine.Engine {
	tb.Helper()
	h.e = open(tb, h.e.config)
	return h.e
}

func (h *harness) Last(tb testing.TB) engine.Engine {
	tb.Helper()
	if err := h.e.Close(); err != nil {
		tb.Error(err)
	}
	h.e.config.OrphanTimeout = -1
	return h.Reopen(tb)
}

func (h *harness) Payload(tb testing.TB, steps ...enginetest.Step) []byte {
	tb.Helper()
	script := "set -e\n"
	var commands [][]string
	for _, s := range steps {
		switch s.Do {
		case enginetest.Print:
			script += "printf %s " + quote(s.Text) + "\n"
		case enginetest.Flood:
			script += fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x\n", s.N)
		case enginetest.Count:
			script += fmt.Sprintf("seq 1 %d\n", s.N)
		case enginetest.PrintEnv:
			script += "env\n"
		case enginetest.Exit:
			script += fmt.Sprintf("exit %d\n", s.N)
		case enginetest.Write:
			script += "mkdir -p " + quote(filepath.Dir(s.Path)) + "\nprintf %s " + quote(s.Text) + " > " + quote(s.Path) + "\n"
		case enginetest.Read:
			script += "cat " + quote(s.Path) + "\n"
		case enginetest.Link:
			script += "ln -s " + quote(s.Text) + " " + quote(s.Path) + "\n"
		case enginetest.Missing:
			commands = append(commands, []string{"no-such-program"})
		case enginetest.Hang:
			script += "trap '' TERM INT HUP\nsetsid sh -c 'sleep 1000000; :' " + s.Text + " &\necho hang''ing\nsleep 1000000\nexit 0\n"
		case enginetest.Linger:
			script += "setsid sh -c 'sleep 1000000; :' " + s.Text + " &\n"
		case enginetest.Heed:
			script += heed
		case enginetest.Await:
			script += "echo await''ing\nuntil grep -q " + quote(s.Text) + " \"$TASKCLUSTER_INTERRUPTION_FILE\" 2>/dev/null; do sleep 0.02; done\ncat \"$TASKCLUSTER_INTERRUPTION_FILE\"\n"
		default:
			tb.Fatalf("no shell command for %q", s.Do)
		}
	}
	return payloadOf(tb, append([][]string{{"sh", "-c", script}}, commands...)...)
}

// heed is what a shell does in a Heed step.
const heed = `told=
trap 'told=1' TERM
if [ -e "$TASKCLUSTER_INTERRUPTION_FILE" ]; then echo heed''ing again; else echo heed''ing; fi
while [ -z "$told" ]; do sleep 0.02; done
trap - TERM
cat "$TASKCLUSTER_INTERRUPTION_FILE"
`

func (h *harness) Alive(tb testing.TB, mark string) bool {
	tb.Helper()
	return len(processes(tb, mark)) > 0
}

// processes returns the numbers of the processes on the host that have a text
// on their command line.
func processes(tb testing.TB, text string) []string {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	var found []string
	for _, name := range files {
		if line, err := os.ReadFile(name); err == nil && strings.Contains(string(line), text) {
			found = append(found, filepath.Base(filepath.Dir(name)))
		}
	}
	return found
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func payloadOf(tb testing.TB, commands ...[]string) []byte {
	tb.Helper()
	p, err := json.Marshal(payload{Command: commands})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
