package interrupttest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness announces to a Memory, and may put something broken around it.
type harness struct {
	memory   *Memory
	source   interrupt.Source
	announce func(interrupt.Notice)
	causes   []string
}

func newHarness(m *Memory) *harness {
	return &harness{memory: m, source: m, announce: m.Announce, causes: []string{"first", "second"}}
}

func (h *harness) Source(testing.TB) interrupt.Source { return h.source }

func (h *harness) Announce(testing.TB) string {
	cause := h.causes[0]
	h.causes = h.causes[1:]
	h.announce(interrupt.Notice{Cause: cause})
	return cause
}

func TestMemoryConforms(t *testing.T) {
	Test(t, func(testing.TB) Harness { return newHarness(&Memory{}) })
}

func TestMemoryConformsWithOneNotice(t *testing.T) {
	TestOnce(t, func(testing.TB) Harness {
		h := newHarness(&Memory{})
		h.causes = h.causes[:1]
		return h
	})
}

// broken is a source whose Wait is any function.
type broken func(context.Context) (interrupt.Notice, error)

func (b broken) Wait(ctx context.Context) (interrupt.Notice, error) { return b(ctx) }

func TestChecksCatchWhatTheyAreFor(t *testing.T) {
	errBroken := errors.New("broken")
	breakages := []struct {
		check, law string
		breakIt    func(h *harness, released <-chan struct{})
	}{
		{"WakesWhoWaits", "Wait does not wait", func(h *harness, _ <-chan struct{}) {
			h.source = broken(func(context.Context) (interrupt.Notice, error) { return interrupt.Notice{}, nil })
		}},
		{"WakesWhoWaits", "nobody is woken", func(h *harness, _ <-chan struct{}) {
			h.announce = func(interrupt.Notice) {}
		}},
		{"KeepsNoticeUntilWaited", "a notice is lost on whoever comes late", func(h *harness, _ <-chan struct{}) {
			h.source = broken(func(ctx context.Context) (interrupt.Notice, error) {
				h.memory.announced = nil
				return h.memory.Wait(ctx)
			})
		}},
		{"KeepsNoticeUntilWaited", "Wait fails", func(h *harness, _ <-chan struct{}) {
			h.source = broken(func(context.Context) (interrupt.Notice, error) { return interrupt.Notice{}, errBroken })
		}},
		{"KeepsNoticeUntilWaited", "the cause is not told", func(h *harness, _ <-chan struct{}) {
			h.announce = func(interrupt.Notice) { h.memory.Announce(interrupt.Notice{}) }
		}},
		{"DeliversSecondNotice", "only the first notice counts", func(h *harness, _ <-chan struct{}) {
			h.announce = func(n interrupt.Notice) {
				if n.Cause == "first" {
					h.memory.Announce(n)
				}
			}
		}},
		{"KeepsMostUrgentNotice", "there is room for one notice only", func(h *harness, _ <-chan struct{}) {
			h.announce = func(n interrupt.Notice) {
				if len(h.memory.announced) == 0 {
					h.memory.Announce(n)
				}
			}
		}},
		{"DeliversOnce", "notices are repeated", func(h *harness, _ <-chan struct{}) {
			h.announce = func(n interrupt.Notice) {
				h.memory.Announce(n)
				h.memory.Announce(n)
			}
		}},
		{"EndsWithContext", "Wait knows no context", func(h *harness, released <-chan struct{}) {
			h.source = broken(func(context.Context) (interrupt.Notice, error) {
				<-released
				return interrupt.Notice{}, nil
			})
		}},
		{"EndsWithContext", "the error is another one", func(h *harness, _ <-chan struct{}) {
			h.source = broken(func(ctx context.Context) (interrupt.Notice, error) {
				<-ctx.Done()
				return interrupt.Notice{}, errBroken
			})
		}},
		{"EndsWithContext", "a canceled Wait returns an empty notice", func(h *harness, _ <-chan struct{}) {
			h.source = broken(func(ctx context.Context) (interrupt.Notice, error) {
				<-ctx.Done()
				return interrupt.Notice{}, nil
			})
		}},
		{"LosesNothingToCanceledWait", "a canceled Wait still takes a notice", func(h *harness, _ <-chan struct{}) {
			var canceled atomic.Bool
			h.source = broken(func(ctx context.Context) (interrupt.Notice, error) {
				n, err := h.memory.Wait(ctx)
				canceled.Store(err != nil)
				return n, err
			})
			h.announce = func(n interrupt.Notice) {
				if !canceled.Load() {
					h.memory.Announce(n)
				}
			}
		}},
	}
	for _, c := range checks() {
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
					h := newHarness(&Memory{})
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

func TestMemoryKeepsOrderAndDeadline(t *testing.T) {
	var m Memory
	want := []interrupt.Notice{{Cause: "drain"}, {Cause: "spot interruption", Deadline: time.Now().Add(2 * time.Minute)}}
	for _, n := range want {
		m.Announce(n)
	}
	for _, n := range want {
		got, err := m.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got != n {
			t.Errorf("notice is %+v, want %+v", got, n)
		}
	}
}
