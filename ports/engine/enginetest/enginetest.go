// Package enginetest tests implementations of the engine port, and has an
// engine in memory for the tests of everything else.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Harness sets up the engine under test. Its methods may fail the test.
type Harness interface {
	// Engine returns the engine. Every call during a test returns the same
	// one. It is closed when the test ends, without leaving anything.
	Engine(t testing.TB) engine.Engine

	// Abilities returns what the engine can do, so that one which loses an
	// ability fails, instead of skipping its checks.
	Abilities() Abilities

	// Payload returns a payload for the engine that has a task take steps. The
	// task stops and fails at the first step that it cannot take.
	Payload(t testing.TB, steps ...Step) []byte

	// Alive reports whether a process of a Hang or Linger step with the given
	// mark is running, wherever it is.
	Alive(t testing.TB, mark string) bool
}

// Reopener is implemented by harnesses of engines that can reattach.
type Reopener interface {
	// Reopen returns the engine as the next process would have it, after
	// Detach. Harness.Engine returns that one from then on.
	Reopen(t testing.TB) engine.Engine

	// Last closes the engine, and returns the one of a process that no other
	// comes after. Harness.Engine returns that one from then on.
	Last(t testing.TB) engine.Engine
}

// Abilities tells which of the optional interfaces an engine implements.
type Abilities struct{ Proxies, Volumes, Shells, Reattach, Interrupts, Images bool }

// Verb is what a task does in a step.
type Verb string

// The verbs.
const (
	Print    Verb = "print"    // prints Text as it is
	Flood    Verb = "flood"    // prints N times "x", without a line break
	Count    Verb = "count"    // prints the numbers from 1 to N, each on a line
	PrintEnv Verb = "printenv" // prints the environment as lines of the form name=value
	Exit     Verb = "exit"     // exits with code N
	Write    Verb = "write"    // writes Text to the file at Path, and makes its directories
	Read     Verb = "read"     // prints the file at Path
	Link     Verb = "link"     // makes a symbolic link at Path to Text
	Fetch    Verb = "fetch"    // prints what the URL in the variable Text answers
	Missing  Verb = "missing"  // executes a program that does not exist

	// Hang ignores what signals a process can ignore, starts a process with
	// the mark Text in a session of its own, prints "hanging" and a line
	// break, and sleeps. Where it is woken after all, it exits zero.
	Hang Verb = "hang"

	// Linger starts a process with the mark Text that sleeps in a session of
	// its own and holds on to the output, and goes on without it.
	Linger Verb = "linger"

	// Heed prints "heeding", or "heeding again" where the interruption file is
	// there already, and a line break, waits for SIGTERM, and prints that file.
	Heed Verb = "heed"

	// Await prints "awaiting" and a line break, waits for the interruption file
	// to contain Text, and prints it.
	Await Verb = "await"
)

// Step is something that a task does. Paths are relative to its working
// directory, or absolute.
type Step struct {
	Do   Verb   `json:"do"`
	Text string `json:"text,omitempty"`
	Path string `json:"path,omitempty"`
	N    int    `json:"n,omitempty"`
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// check returns an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
type check func(context.Context, testing.TB, Harness) error

type namedCheck struct {
	name  string
	check check
}

func checks() []namedCheck {
	return []namedCheck{
		{"HasNameAndSchema", hasNameAndSchema},
		{"HasTheAbilitiesItDeclares", hasDeclaredAbilities},
		{"SetsEnvironment", setsEnvironment},
		{"RefusesInvalidEnvironment", refusesInvalidEnvironment},
		{"InheritsNoEnvironment", inheritsNoEnvironment},
		{"ReportsExitCode", reportsExitCode},
		{"FailsWhereThereIsNoSuchCommand", failsWithoutCommand},
		{"LogsCommandsInOrder", logsInOrder},
		{"HasAllOutputInLogAfterWait", logsAllOutput},
		{"ReportsUsage", reportsUsage},
		{"WaitsForEveryCaller", waitsForEveryCaller},
		{"CanceledWaitLeavesSandbox", canceledWaitLeavesSandbox},
		{"WaitsForAllProcesses", waitsForAllProcesses},
		{"KillEndsAsFailure", killEndsAsFailure},
		{"KillAfterEndDoesNothing", killAfterEnd},
		{"AbortReleasesAll", abortReleasesAll},
		{"AbortAfterResultDoesNothing", abortAfterResult},
		{"ClosesBuilder", closesBuilder},
		{"ShowsFilesUntilClose", showsFiles},
		{"FollowsNoLinkOutOfSandbox", followsNoLinkOut},
		{"SeparatesSandboxes", separatesSandboxes},
		{"IdentifiesImage", identifiesImage},
		{"ServesProxies", servesProxies},
		{"MountsVolumes", mountsVolumes},
		{"OpensShells", opensShells},
		{"SandboxOutlivesProcess", outlivesProcess},
		{"LosesNoOutputBetweenProcesses", losesNoOutput},
		{"KeepsResultForNextProcess", keepsResult},
		{"AbortsWhatItReattached", abortsReattached},
		{"OpensShellsInWhatItReattached", opensShellsInReattached},
		{"TellsWhenItStarted", tellsWhenItStarted},
		{"DetachesFromAll", detachesFromAll},
		{"DiscardsOrphans", discardsOrphans},
		{"SandboxEndsWithLastProcess", endsWithLast},
		{"TellsTaskToStop", tellsTaskToStop},
		{"AnnouncesInterruption", announcesInterruption},
		{"KillsWhatHeedsNoInterruption", killsHeedless},
		{"ExecutesNothingAfterInterruption", executesNothingMore},
		{"InterruptionAfterEndDoesNothing", interruptAfterEnd},
		{"InterruptsWhatItReattached", interruptsReattached},
	}
}

// options returns the options for a run of steps, and its log.
func options(tb testing.TB, h Harness, steps ...Step) (engine.Options, *output) {
	tb.Helper()
	log := newOutput()
	return engine.Options{
		Run:       task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ"},
		Payload:   h.Payload(tb, steps...),
		Log:       tasklog.New(log),
		Authorize: func(context.Context, ...task.Scopes) error { return nil },
	}, log
}

// build returns a builder for a run of steps, and its log.
func build(ctx context.Context, tb testing.TB, h Harness, steps ...Step) (engine.Builder, *output, error) {
	tb.Helper()
	o, log := options(tb, h, steps...)
	b, err := h.Engine(tb).NewBuilder(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("NewBuilder: %w", err)
	}
	return b, log, nil
}

// start starts a run of steps.
func start(ctx context.Context, tb testing.TB, h Harness, steps ...Step) (engine.Sandbox, *output, error) {
	tb.Helper()
	b, log, err := build(ctx, tb, h, steps...)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.Start(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("Start: %w", err)
	}
	return s, log, nil
}

// finish waits for a sandbox. What the caller does not close, the test does.
func finish(ctx context.Context, tb testing.TB, s engine.Sandbox) (engine.ResultSet, error) {
	tb.Helper()
	r, err := s.Wait(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("Wait: %w", err), s.Abort(context.WithoutCancel(ctx)))
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Errorf("ResultSet.Close: %v", err)
		}
	})
	return r, nil
}

// run starts a run of steps, and waits for its end.
func run(ctx context.Context, tb testing.TB, h Harness, steps ...Step) (engine.ResultSet, *output, error) {
	tb.Helper()
	s, log, err := start(ctx, tb, h, steps...)
	if err != nil {
		return nil, nil, err
	}
	r, err := finish(ctx, tb, s)
	return r, log, err
}

// output is a log that can be waited upon.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.buf.Write(p)
}

// String returns what was written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// hanging waits until a Hang step has said that it hangs.
func (o *output) hanging(ctx context.Context) error { return o.await(ctx, "hanging") }

// await waits until the log contains a text.
func (o *output) await(ctx context.Context, text string) error {
	for {
		o.mu.Lock()
		written, changed := o.buf.String(), o.changed
		o.mu.Unlock()
		if strings.Contains(written, text) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q in the log: %w; it is:\n%s", text, ctx.Err(), written)
		}
	}
}
