// Package interrupttest tests implementations of the interrupt port, and has a
// source in memory for the tests of everything else.
package interrupttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Harness sets up the source under test. Its methods may fail the test.
type Harness interface {
	// Source returns the source. Every call during a test returns the same one.
	Source(t testing.TB) interrupt.Source

	// Announce has the outside world announce an interruption, and returns
	// the cause of the notice that is due. It is called at most twice in a
	// test, the second one being more urgent and of another cause; by
	// TestOnce, it is called once.
	Announce(t testing.TB) (cause string)
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	t.Helper()
	run(t, newHarness, checks())
}

// TestOnce runs those that are about one notice, for sources that have no
// second one to give.
func TestOnce(t *testing.T, newHarness func(testing.TB) Harness) {
	t.Helper()
	run(t, newHarness, slices.DeleteFunc(checks(), func(c check) bool { return c.twice }))
}

func run(t *testing.T, newHarness func(testing.TB) Harness, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// check is one law of the port. It returns an error rather than fail the test,
// so that the tests of this package can show that it catches what it is for.
type check struct {
	name  string
	check func(context.Context, testing.TB, Harness) error
	twice bool // whether it has two notices announced
}

func checks() []check {
	return []check{
		{"WakesWhoWaits", wakesWhoWaits, false},
		{"KeepsNoticeUntilWaited", keepsNoticeUntilWaited, false},
		{"DeliversSecondNotice", deliversSecondNotice, true},
		{"KeepsMostUrgentNotice", keepsMostUrgentNotice, true},
		{"DeliversOnce", deliversOnce, false},
		{"EndsWithContext", endsWithContext, false},
		{"LosesNothingToCanceledWait", losesNothingToCanceledWait, false},
	}
}

// patience is how long a notice may take, and silence how long one is awaited
// that should not come.
const (
	patience = 10 * time.Second
	silence  = 50 * time.Millisecond
)

// answer is what Wait returned.
type answer struct {
	notice interrupt.Notice
	err    error
}

// ask calls Wait, which may be broken and never return.
func ask(ctx context.Context, tb testing.TB, h Harness) <-chan answer {
	tb.Helper()
	source := h.Source(tb)
	answers := make(chan answer, 1)
	go func() {
		n, err := source.Wait(ctx)
		answers <- answer{n, err}
	}()
	return answers
}

// expect awaits an answer, which is to be a notice of a cause.
func expect(answers <-chan answer, cause string) error {
	select {
	case a := <-answers:
		switch {
		case a.err != nil:
			return fmt.Errorf("failed although its context is not done: %w", a.err)
		case a.notice.Cause != cause:
			return fmt.Errorf("cause is %q, want %q", a.notice.Cause, cause)
		default:
			return nil
		}
	case <-time.After(patience):
		return fmt.Errorf("returned no notice of %q", cause)
	}
}

func wakesWhoWaits(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	answers := ask(ctx, tb, h)
	select {
	case a := <-answers:
		return fmt.Errorf("Wait returned %+v, %s without a notice", a.notice, fmt.Sprint(a.err))
	case <-time.After(silence):
	}
	if err := expect(answers, h.Announce(tb)); err != nil {
		return fmt.Errorf("Wait before the notice: %w", err)
	}
	return nil
}

// A worker may still be starting when it is told to stop.
func keepsNoticeUntilWaited(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.Source(tb)
	cause := h.Announce(tb)
	if err := expect(ask(ctx, tb, h), cause); err != nil {
		return fmt.Errorf("Wait after the notice: %w", err)
	}
	return nil
}

func deliversSecondNotice(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.Source(tb)
	for i := range 2 {
		cause := h.Announce(tb)
		if err := expect(ask(ctx, tb, h), cause); err != nil {
			return fmt.Errorf("Wait %d: %w", i+1, err)
		}
	}
	return nil
}

// Of notices that nobody waited for, the most urgent one is delivered. The
// outside world may not keep their order.
func keepsMostUrgentNotice(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.Source(tb)
	first, second := h.Announce(tb), h.Announce(tb)
	var got interrupt.Notice
	for got.Cause != second {
		select {
		case a := <-ask(ctx, tb, h):
			if a.err != nil {
				return fmt.Errorf("Wait after two notices: %w", a.err)
			}
			if got = a.notice; got.Cause != first && got.Cause != second {
				return fmt.Errorf("cause is %q, want %q or %q", got.Cause, first, second)
			}
		case <-time.After(patience):
			return fmt.Errorf("of two notices, %q was not delivered", second)
		}
	}
	return nil
}

func deliversOnce(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.Source(tb)
	cause := h.Announce(tb)
	if err := expect(ask(ctx, tb, h), cause); err != nil {
		return fmt.Errorf("Wait after the notice: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case a := <-ask(ctx, tb, h):
		return fmt.Errorf("Wait after one notice returned a second one, %+v, %s", a.notice, fmt.Sprint(a.err))
	case <-time.After(silence):
		return nil
	}
}

var errAway = errors.New("the worker is done")

func endsWithContext(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	answers := ask(ctx, tb, h)
	cancel(errAway)
	select {
	case a := <-answers:
		if !errors.Is(a.err, context.Canceled) && !errors.Is(a.err, errAway) {
			return fmt.Errorf("Wait of a canceled context returned %+v, %q, want its error", a.notice, fmt.Sprint(a.err))
		}
		return nil
	case <-time.After(patience):
		return errors.New("Wait goes on after its context is done")
	}
}

func losesNothingToCanceledWait(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	canceled, cancel := context.WithCancel(ctx)
	answers := ask(canceled, tb, h)
	cancel()
	select {
	case <-answers:
	case <-time.After(patience):
		return errors.New("Wait goes on after its context is done")
	}
	cause := h.Announce(tb)
	if err := expect(ask(ctx, tb, h), cause); err != nil {
		return fmt.Errorf("Wait after one that was canceled: %w", err)
	}
	return nil
}
