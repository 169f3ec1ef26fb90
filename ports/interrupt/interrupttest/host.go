package interrupttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// HostHarness sets up the host under test, and the outside world that can take
// it away. Its methods may fail the test.
type HostHarness interface {
	// Host returns the host. Every call during a test returns the same one.
	Host(tb testing.TB) interrupt.Host

	// Behave sets what happens from now on when somebody asks to have the
	// machine taken away. At first, that is Obey.
	Behave(tb testing.TB, b Behavior)

	// Retired reports whether the machine is, or is about to be, taken away.
	Retired(tb testing.TB) bool
}

// Behavior is how the outside world takes being asked to retire a host.
type Behavior int

// The ways to behave.
const (
	Obey   Behavior = iota // it is retired
	Refuse                 // there is an answer, and it is no
	Stall                  // there is no answer
)

// TestHost runs the conformance tests of hosts, each against a fresh harness.
func TestHost(t *testing.T, newHarness func(testing.TB) HostHarness) {
	t.Helper()
	for _, c := range hostChecks() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// hostCheck is one law of hosts.
type hostCheck struct {
	name  string
	check func(context.Context, testing.TB, HostHarness) error
}

func hostChecks() []hostCheck {
	return []hostCheck{
		{"IsLeftAlone", isLeftAlone},
		{"IsRetired", isRetired},
		{"IsRetiredAgain", isRetiredAgain},
		{"SaysIfRefused", saysIfRefused},
		{"IsRetiredAfterRefusal", isRetiredAfterRefusal},
		{"IsKeptByCanceledContext", isKeptByCanceledContext},
		{"WaitsNoLongerThanContext", waitsNoLongerThanContext},
	}
}

const why = "it's idle; $(and) \"spent\"\n"

func isLeftAlone(_ context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	h.Host(tb)
	if h.Retired(tb) {
		return errors.New("the machine is retired though nobody asked for it")
	}
	return nil
}

func isRetired(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	if err := h.Host(tb).Retire(ctx, why); err != nil {
		return fmt.Errorf("Retire: %w", err)
	}
	if !h.Retired(tb) {
		return errors.New("Retire returned, and the machine is not retired")
	}
	return nil
}

func isRetiredAgain(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	for i := range 2 {
		if err := isRetired(ctx, tb, h); err != nil {
			return fmt.Errorf("call %d: %w", i+1, err)
		}
	}
	return nil
}

func saysIfRefused(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	h.Behave(tb, Refuse)
	if err := h.Host(tb).Retire(ctx, why); err == nil {
		return errors.New("Retire returned no error although the machine is kept")
	}
	return nil
}

func isRetiredAfterRefusal(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	if err := saysIfRefused(ctx, tb, h); err != nil {
		return err
	}
	h.Behave(tb, Obey)
	return isRetired(ctx, tb, h)
}

func isKeptByCanceledContext(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(errAway)
	err := h.Host(tb).Retire(ctx, why)
	if !ofContext(err) {
		return fmt.Errorf("Retire of a canceled context returned %q, want its error", fmt.Sprint(err))
	}
	if h.Retired(tb) {
		return errors.New("the machine is retired by a call whose context was canceled before")
	}
	return nil
}

func waitsNoLongerThanContext(ctx context.Context, tb testing.TB, h HostHarness) error {
	tb.Helper()
	h.Behave(tb, Stall)
	ctx, cancel := context.WithTimeout(ctx, 5*silence)
	defer cancel()
	host := h.Host(tb)
	returned := make(chan error, 1)
	go func() { returned <- host.Retire(ctx, why) }()
	select {
	case err := <-returned:
		if !ofContext(err) {
			return fmt.Errorf("Retire returned %q although nobody answered, want the error of its context", fmt.Sprint(err))
		}
		return nil
	case <-time.After(patience):
		return errors.New("Retire goes on after its context is done")
	}
}

func ofContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errAway)
}

var _ interrupt.Host = (*MemoryHost)(nil)

// MemoryHost is a host that takes note of being retired. The zero value is
// ready.
type MemoryHost struct {
	mu       sync.Mutex
	behavior Behavior
	retired  []string
}

// Behave sets what the following calls of Retire do.
func (h *MemoryHost) Behave(b Behavior) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behavior = b
}

// Retired returns why the host was retired, once for each call.
func (h *MemoryHost) Retired() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.retired)
}

// Retire implements interrupt.Host.
func (h *MemoryHost) Retire(ctx context.Context, why string) error {
	h.mu.Lock()
	behavior := h.behavior
	h.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case behavior == Refuse:
		return errors.New("the host is kept")
	case behavior == Stall:
		<-ctx.Done()
		return ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retired = append(h.retired, why)
	return nil
}
