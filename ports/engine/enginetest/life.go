package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

func hasNameAndSchema(_ context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	e := h.Engine(tb)
	if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(e.Name()) {
		return fmt.Errorf("Name is %q, want a key for the configuration", e.Name())
	}
	var schema struct {
		Type       string
		Properties map[string]any
	}
	if err := json.Unmarshal(e.PayloadSchema(), &schema); err != nil {
		return fmt.Errorf("PayloadSchema: %w", err)
	}
	if schema.Type != "object" || len(schema.Properties) == 0 {
		return errors.New("PayloadSchema is not of an object with properties")
	}
	return nil
}

func setsEnvironment(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	b, log, err := build(ctx, tb, h, Step{Do: PrintEnv})
	if err != nil {
		return err
	}
	for _, v := range [][2]string{{"ONCE", "a b=c\t\"$HOME\" é"}, {"TWICE", "old"}, {"TWICE", "new"}, {"EMPTY", ""}} {
		if err := b.SetEnv(v[0], v[1]); err != nil {
			return fmt.Errorf("SetEnv(%q, %q): %w", v[0], v[1], err)
		}
	}
	s, err := b.Start(ctx)
	if err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	if _, err := finish(ctx, tb, s); err != nil {
		return err
	}
	lines := strings.Split(log.String(), "\n")
	for _, want := range []string{"ONCE=a b=c\t\"$HOME\" é", "TWICE=new", "EMPTY="} {
		if !contains(lines, want) {
			return fmt.Errorf("the environment of the task lacks %q:\n%s", want, log)
		}
	}
	if contains(lines, "TWICE=old") {
		return errors.New("SetEnv did not replace the variable that was set before")
	}
	return nil
}

func contains(lines []string, want string) bool {
	for _, line := range lines {
		if strings.TrimSuffix(line, "\r") == want {
			return true
		}
	}
	return false
}

func refusesInvalidEnvironment(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	b, _, err := build(ctx, tb, h, Step{Do: Print})
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	for _, v := range [][2]string{{"", "x"}, {"A=B", "x"}, {"NUL\x00NAME", "x"}, {"NUL", "a\x00b"}} {
		err := b.SetEnv(v[0], v[1])
		if f := fault.Classify(err); f == nil || f.Kind != fault.Malformed {
			return fmt.Errorf("SetEnv(%q, %q) returned %q, want a fault of kind Malformed", v[0], v[1], fmt.Sprint(err))
		}
	}
	return nil
}

func inheritsNoEnvironment(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	tb.Setenv("ENGINETEST_SECRET", "of the worker")
	_, log, err := run(ctx, tb, h, Step{Do: PrintEnv})
	if err != nil {
		return err
	}
	if strings.Contains(log.String(), "ENGINETEST_SECRET") {
		return errors.New("the task sees the environment of the worker")
	}
	return nil
}

func reportsExitCode(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	for _, code := range []int{0, 1, 7, 255} {
		r, _, err := run(ctx, tb, h, Step{Do: Exit, N: code})
		if err != nil {
			return err
		}
		got := r.Result()
		if got.ExitCode != code || got.Success != (code == 0) || got.Signal != "" || got.Killed || got.OOM {
			return fmt.Errorf("a task that exits with %d has the result %+v", code, got)
		}
	}
	return nil
}

func failsWithoutCommand(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	r, _, err := run(ctx, tb, h, Step{Do: Missing})
	if err != nil {
		return err
	}
	if got := r.Result(); got.Success || got.ExitCode == 0 {
		return fmt.Errorf("a program that does not exist has the result %+v", got)
	}
	return nil
}

func reportsUsage(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	r, _, err := run(ctx, tb, h, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	if got := r.Result(); got.Wall <= 0 || got.User < 0 || got.Kernel < 0 || got.PeakMemory < 0 {
		return fmt.Errorf("the usage of a task is %+v", got)
	}
	return nil
}

func waitsForEveryCaller(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	s, _, err := start(ctx, tb, h, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var results [3]engine.ResultSet
	var errs [3]error
	for i := range results {
		wg.Go(func() { results[i], errs[i] = s.Wait(ctx) })
	}
	wg.Wait()
	last, err := finish(ctx, tb, s)
	if err := errors.Join(err, errors.Join(errs[:]...)); err != nil {
		return err
	}
	for _, r := range results {
		if r != last {
			return errors.New("two calls of Wait returned different result sets")
		}
	}
	return nil
}

func canceledWaitLeavesSandbox(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	mark := mark(tb)
	s, log, err := start(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer func() { _ = s.Abort(context.WithoutCancel(ctx)) }()
	if err := log.hanging(ctx); err != nil {
		return err
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Wait(canceled); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Wait returned %q, want the error of its context", fmt.Sprint(err))
	}
	if !h.Alive(tb, mark) {
		return errors.New("canceling a Wait has ended the sandbox")
	}
	return nil
}

func waitsForAllProcesses(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	mark := mark(tb)
	r, _, err := run(ctx, tb, h, Step{Do: Linger, Text: mark}, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	if h.Alive(tb, mark) {
		return errors.New("a process is left after Wait")
	}
	if !r.Result().Success {
		return fmt.Errorf("a task that leaves a process behind has the result %+v", r.Result())
	}
	return nil
}

func killEndsAsFailure(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	mark := mark(tb)
	s, log, err := start(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	if err := log.hanging(ctx); err != nil {
		return errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	for i := range 2 {
		if err := s.Kill(ctx); err != nil {
			return fmt.Errorf("Kill, call %d: %w", i+1, err)
		}
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if got := r.Result(); got.Success || !got.Killed {
		return fmt.Errorf("a killed task has the result %+v", got)
	}
	if h.Alive(tb, mark) {
		return errors.New("a process has survived the kill")
	}
	return nil
}

func killAfterEnd(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	s, _, err := start(ctx, tb, h, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if err := s.Kill(ctx); err != nil {
		return fmt.Errorf("Kill after the end: %w", err)
	}
	again, err := s.Wait(ctx)
	if err != nil || again != r || !again.Result().Success || again.Result().Killed {
		return fmt.Errorf("after a late Kill, Wait returned %v, %q", again, fmt.Sprint(err))
	}
	return nil
}

func abortReleasesAll(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	mark := mark(tb)
	s, log, err := start(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	hung := log.hanging(ctx)
	for i := range 2 {
		if err := s.Abort(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("Abort, call %d: %w", i+1, err)
		}
	}
	if hung != nil {
		return hung
	}
	if h.Alive(tb, mark) {
		return errors.New("a process has survived Abort")
	}
	if _, err := s.Wait(ctx); !errors.Is(err, engine.ErrAborted) {
		return fmt.Errorf("Wait after Abort returned %q, want ErrAborted", fmt.Sprint(err))
	}
	return nil
}

func abortAfterResult(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	s, _, err := start(ctx, tb, h, Step{Do: Write, Path: "file", Text: "content"})
	if err != nil {
		return err
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if err := s.Abort(ctx); err != nil {
		return fmt.Errorf("Abort: %w", err)
	}
	if err := hasFile(r, "file", "content"); err != nil {
		return fmt.Errorf("after Abort: %w", err)
	}
	return nil
}

func closesBuilder(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	b, _, err := build(ctx, tb, h, Step{Do: Print, Text: "x"})
	if err != nil {
		return err
	}
	for i := range 2 {
		if err := b.Close(); err != nil {
			return fmt.Errorf("Builder.Close, call %d: %w", i+1, err)
		}
	}
	if b, _, err = build(ctx, tb, h, Step{Do: Print, Text: "x"}); err != nil {
		return err
	}
	s, err := b.Start(ctx)
	if err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	if err := b.Close(); err != nil {
		return fmt.Errorf("Builder.Close after Start: %w", err)
	}
	r, err := finish(ctx, tb, s)
	if err != nil {
		return err
	}
	if !r.Result().Success {
		return fmt.Errorf("closing the builder after Start has ended the task: %+v", r.Result())
	}
	return nil
}
