package interrupttest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// hostHarness has a MemoryHost, and may put something broken around it.
type hostHarness struct {
	memory *MemoryHost
	host   interrupt.Host
}

func newHostHarness() *hostHarness {
	m := &MemoryHost{}
	return &hostHarness{memory: m, host: m}
}

func (h *hostHarness) Host(testing.TB) interrupt.Host       { return h.host }
func (h *hostHarness) Behave(_ testing.TB, b Behavior)      { h.memory.Behave(b) }
func (h *hostHarness) Retired(testing.TB) bool              { return len(h.memory.Retired()) > 0 }
func (f hostFunc) Retire(c context.Context, w string) error { return f(c, w) }

// hostFunc is a host whose Retire is any function.
type hostFunc func(context.Context, string) error

func TestMemoryHostConforms(t *testing.T) {
	TestHost(t, func(testing.TB) HostHarness { return newHostHarness() })
}

func TestMemoryHostTellsWhy(t *testing.T) {
	var h MemoryHost
	if err := h.Retire(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"idle"}, h.Retired()); diff != "" {
		t.Errorf("retired (-want +got):\n%s", diff)
	}
}

func TestHostChecksCatchWhatTheyAreFor(t *testing.T) {
	errBroken := errors.New("broken")
	breakages := []struct {
		check, law string
		breakIt    func(h *hostHarness, released <-chan struct{})
	}{
		{"IsLeftAlone", "making a host retires it", func(h *hostHarness, _ <-chan struct{}) {
			_ = h.memory.Retire(context.Background(), "")
		}},
		{"IsRetired", "nothing happens", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(context.Context, string) error { return nil })
		}},
		{"IsRetired", "it happens, and an error is returned", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(ctx context.Context, why string) error {
				return errors.Join(h.memory.Retire(ctx, why), errBroken)
			})
		}},
		{"IsRetiredAgain", "the second call fails", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(ctx context.Context, why string) error {
				if len(h.memory.Retired()) > 0 {
					return errBroken
				}
				return h.memory.Retire(ctx, why)
			})
		}},
		{"SaysIfRefused", "errors are swallowed", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(ctx context.Context, why string) error {
				_ = h.memory.Retire(ctx, why)
				return nil
			})
		}},
		{"IsRetiredAfterRefusal", "an error is for ever", func(h *hostHarness, _ <-chan struct{}) {
			var err error
			h.host = hostFunc(func(ctx context.Context, why string) error {
				if err == nil {
					err = h.memory.Retire(ctx, why)
				}
				return err
			})
		}},
		{"IsKeptByCanceledContext", "its context is not looked at", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(_ context.Context, why string) error {
				return h.memory.Retire(context.Background(), why)
			})
		}},
		{"IsKeptByCanceledContext", "its context is looked at too late", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(ctx context.Context, why string) error {
				return errors.Join(h.memory.Retire(context.Background(), why), ctx.Err())
			})
		}},
		{"WaitsNoLongerThanContext", "Retire knows no context", func(h *hostHarness, released <-chan struct{}) {
			h.host = hostFunc(func(context.Context, string) error {
				<-released
				return nil
			})
		}},
		{"WaitsNoLongerThanContext", "no answer is taken for yes", func(h *hostHarness, _ <-chan struct{}) {
			h.host = hostFunc(func(ctx context.Context, why string) error {
				_ = h.memory.Retire(ctx, why)
				return nil
			})
		}},
	}
	for _, c := range hostChecks() {
		t.Run(c.name, func(t *testing.T) {
			tried := 0
			for _, b := range breakages {
				if b.check != c.name {
					continue
				}
				tried++
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					released := make(chan struct{})
					defer close(released)
					h := newHostHarness()
					b.breakIt(h, released)
					if err := c.check(ctx, t, h); err == nil {
						t.Errorf("passes although %s", b.law)
					} else {
						t.Logf("%s: %v", b.law, err)
					}
				})
			}
			if tried == 0 {
				t.Error("nothing shows that this check can fail")
			}
		})
	}
}
