// Package plugintest tests implementations of the plugin port, and leads plugins
// through the stages of a run without a worker.
package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

// Subject is a plugin under test.
type Subject struct {
	Plugin  plugin.Plugin
	Payload string           // a part of a payload that makes use of the plugin, in JSON
	Compile payload.Compiler // compiles the plugin's schema
}

// Test runs the conformance tests, each against a fresh subject.
func Test(t *testing.T, newSubject func(testing.TB) Subject) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.check(ctx, newSubject(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []struct {
	name  string
	check func(context.Context, Subject) error
}{
	{"NameIsASection", nameIsASection},
	{"SchemaIsAFragment", schemaIsAFragment},
	{"SchemaIsDocumented", schemaIsDocumented},
	{"SchemaAcceptsThePayload", schemaAcceptsThePayload},
	{"NeedsNoHookBeforeClose", needsNoHookBeforeClose},
	{"LivesThroughARun", livesThroughARun},
	{"SalvagesOfNothing", salvagesOfNothing},
	{"SalvagesAfterInterruption", salvagesAfterInterruption},
	{"LivesThroughARunThatIsResumed", livesThroughResumption},
	{"StopsWithContext", stopsWithContext},
	{"ReservesTheSameNames", reservesTheSameNames},
	{"KeepsRunsApart", keepsRunsApart},
	{"LeavesNoGoroutines", leavesNoGoroutines},
}

func nameIsASection(_ context.Context, s Subject) error {
	name := s.Plugin.Name()
	if !regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`).MatchString(name) {
		return fmt.Errorf("the name %q is no key for a section of the configuration", name)
	}
	if again := s.Plugin.Name(); again != name {
		return fmt.Errorf("the name was %q and then %q", name, again)
	}
	return nil
}

func needsNoHookBeforeClose(_ context.Context, s Subject) error {
	d, err := s.start()
	if err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("Close right after NewTaskPlugin: %w", err)
	}
	return nil
}

func livesThroughARun(ctx context.Context, s Subject) error {
	d, err := Through(ctx, s.Plugin, Setup{Payload: s.Payload})
	if err != nil {
		return fmt.Errorf("a run that goes well: %w\n%s", err, d.Log())
	}
	return nil
}

// A run that fails early has no sandbox and no result set.
func salvagesOfNothing(ctx context.Context, s Subject) error {
	d, err := s.start()
	if err != nil {
		return err
	}
	d.ResultSet = nil
	why := run.Resolution{Outcome: run.Exception, Reason: run.MalformedPayload}
	return errors.Join(d.Salvage(ctx, why.Reason), d.Finished(ctx, why), d.Close())
}

// A run whose host goes away is stopped while the task runs: nothing comes
// between Started and Salvage, and what the task has not made is no error.
func salvagesAfterInterruption(ctx context.Context, s Subject) error {
	why := run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}
	for _, result := range []engine.Result{
		{ExitCode: -1, Signal: "killed", Killed: true},
		{ExitCode: -1, Signal: "killed", Killed: true, Interrupted: true},
		{ExitCode: 1, Interrupted: true},
		{Success: true, Interrupted: true},
	} {
		d, err := Start(s.Plugin, Setup{Payload: s.Payload, Result: result})
		if err != nil {
			return fmt.Errorf("NewTaskPlugin with a valid payload: %w", err)
		}
		err = errors.Join(d.Prepare(ctx), d.BuildSandbox(ctx), d.Started(ctx), d.Salvage(ctx, why.Reason), d.Finished(ctx, why), d.Close())
		if err != nil {
			return fmt.Errorf("a run that is interrupted, of a task with the result %+v: %w\n%s", result, err, d.Log())
		}
	}
	return nil
}

// A process that is killed while the task runs is followed by one that knows of
// the run what was noted, and nothing else. The first one is closed in the end,
// as there is but one process here.
func livesThroughResumption(ctx context.Context, s Subject) error {
	killed, err := s.start()
	if err != nil {
		return err
	}
	if err := errors.Join(killed.Prepare(ctx), killed.BuildSandbox(ctx), killed.Started(ctx)); err != nil {
		return err
	}
	d, err := Start(s.Plugin, Setup{Payload: s.Payload, Held: killed.Held})
	if err != nil {
		return err
	}
	why := run.Resolution{Outcome: run.Completed}
	err = errors.Join(d.Resumed(ctx, time.Now()), d.Stopped(ctx), d.Finished(ctx, why), d.Close())
	if err != nil {
		return fmt.Errorf("a run that is resumed: %w\n%s", err, d.Log())
	}
	return killed.Close()
}

// Hooks may do what they do at once, whatever the context, but must not wait.
func stopsWithContext(ctx context.Context, s Subject) error {
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	why := run.Resolution{Outcome: run.Exception, Reason: run.WorkerShutdown}
	for _, hook := range []struct {
		name string
		call func(*Drive) error
	}{
		{"Prepare", func(d *Drive) error { return d.Prepare(canceled) }},
		{"BuildSandbox", func(d *Drive) error { return d.BuildSandbox(canceled) }},
		{"Started", func(d *Drive) error { return d.Started(canceled) }},
		{"Stopped", func(d *Drive) error { return d.Stopped(canceled) }},
		{"Salvage", func(d *Drive) error { return d.Salvage(canceled, why.Reason) }},
		{"Finished", func(d *Drive) error { return d.Finished(canceled, why) }},
	} {
		d, err := s.start()
		if err != nil {
			return err
		}
		if err := inTime(ctx, func() { _ = hook.call(d) }); err != nil {
			return fmt.Errorf("%s: %w", hook.name, err)
		}
		if err := d.Close(); err != nil {
			return fmt.Errorf("Close after %s: %w", hook.name, err)
		}
	}
	return nil
}

func inTime(ctx context.Context, call func()) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New("does not return though its context is done")
	}
}

func reservesTheSameNames(_ context.Context, s Subject) error {
	d, err := s.start()
	if err != nil {
		return err
	}
	names := d.ArtifactNames()
	again := d.ArtifactNames()
	if err := d.Close(); err != nil {
		return err
	}
	if !slices.Equal(names, again) {
		return fmt.Errorf("reserved %q and then %q", names, again)
	}
	seen := map[string]bool{}
	for _, name := range names {
		if name == "" || seen[name] {
			return fmt.Errorf("%q are not names of different artifacts", names)
		}
		seen[name] = true
	}
	return nil
}

func keepsRunsApart(ctx context.Context, s Subject) error {
	const n = 4
	drives, errs := make([]*Drive, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { drives[i], errs[i] = Through(ctx, s.Plugin, Setup{Payload: s.Payload}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, d := range drives {
		if got, want := d.Artifacts.Names(), drives[0].Artifacts.Names(); !slices.Equal(got, want) {
			return fmt.Errorf("equal runs have the artifacts %q and %q", got, want)
		}
	}
	return nil
}

func leavesNoGoroutines(ctx context.Context, s Subject) error {
	// Goroutines inherit the labels of the one that starts them.
	label := strconv.FormatInt(time.Now().UnixNano(), 36)
	var err error
	pprof.Do(ctx, pprof.Labels("plugintest", label), func(ctx context.Context) {
		if _, err = Through(ctx, s.Plugin, Setup{Payload: s.Payload}); err != nil {
			return
		}
		var d *Drive
		if d, err = s.start(); err != nil {
			return
		}
		// A run that is abandoned while its task is in execution.
		err = errors.Join(d.Prepare(ctx), d.BuildSandbox(ctx), d.Started(ctx), d.Close())
	})
	if err != nil {
		return err
	}
	// What is about to return gets the time to do so.
	var left []string
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if left, err = labeled(label); err != nil || len(left) == 0 {
			return err
		}
	}
	return fmt.Errorf("goroutines are left after Close:\n%s", strings.Join(left, "\n\n"))
}

// labeled returns the stacks of goroutines that have a label of this value.
func labeled(label string) ([]string, error) {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return nil, fmt.Errorf("list goroutines: %w", err)
	}
	var stacks []string
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(stack, strconv.Quote(label)) {
			stacks = append(stacks, stack)
		}
	}
	return stacks, nil
}

func (s Subject) start() (*Drive, error) {
	d, err := Start(s.Plugin, Setup{Payload: s.Payload})
	if err != nil {
		return nil, fmt.Errorf("NewTaskPlugin with a valid payload: %w", err)
	}
	return d, nil
}
