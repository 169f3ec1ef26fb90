package signals

import (
	"context"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

func TestNotices(t *testing.T) {
	const grace = 30 * time.Second
	// Signals come a second apart, and nobody waits for what they announce
	// until an hour later.
	for _, tt := range []struct {
		name    string
		cfg     Config
		signals []os.Signal
		want    func(start time.Time) []interrupt.Notice
	}{
		{
			"SIGTERM leaves the grace period, from when it is received",
			Config{},
			[]os.Signal{syscall.SIGTERM},
			func(start time.Time) []interrupt.Notice {
				return []interrupt.Notice{{Cause: "SIGTERM", Deadline: start.Add(grace)}}
			},
		},
		{
			"the grace period is configured",
			Config{Grace: time.Minute},
			[]os.Signal{os.Interrupt},
			func(start time.Time) []interrupt.Notice {
				return []interrupt.Notice{{Cause: "SIGINT", Deadline: start.Add(time.Minute)}}
			},
		},
		{
			"a second one leaves no time, and a third says nothing new",
			Config{},
			[]os.Signal{os.Interrupt, syscall.SIGTERM, os.Interrupt},
			func(start time.Time) []interrupt.Notice {
				return []interrupt.Notice{
					{Cause: "SIGINT", Deadline: start.Add(grace)},
					{Cause: "SIGTERM", Deadline: start.Add(time.Second)},
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if diff := cmp.Diff(tt.want(start), announced(t, tt.cfg, tt.signals)); diff != "" {
					t.Errorf("notices (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestContext(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patience time.Duration
		signals  []time.Duration // when they come
		made     time.Duration   // when the context is
		want     time.Duration   // when it ends
	}{
		{"the first signal ends it", 0, []time.Duration{time.Second}, 0, time.Second},
		{"a signal has come before", 0, []time.Duration{time.Second}, time.Minute, time.Minute},
		{"with patience", 5 * time.Second, []time.Duration{time.Second}, 0, 6 * time.Second},
		{"the second one ends patience", 5 * time.Second, []time.Duration{time.Second, 3 * time.Second, 4 * time.Second}, 0, 3 * time.Second},
		{"no signal", 0, nil, 0, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c := newCaught()
				go c.keep()
				defer close(c.received)
				for _, at := range tt.signals {
					time.AfterFunc(at, func() { c.received <- syscall.SIGTERM })
				}
				<-time.After(tt.made)
				parent, cancel := context.WithTimeout(t.Context(), time.Hour-tt.made)
				defer cancel()
				ctx, stop := c.Context(parent, tt.patience)
				defer stop()
				<-ctx.Done()
				if got := time.Since(start); got != tt.want {
					t.Errorf("the context ends after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// announced returns what a source announces, in a bubble.
func announced(t *testing.T, cfg Config, signals []os.Signal) []interrupt.Notice {
	t.Helper()
	c := newCaught()
	go c.keep()
	for _, sig := range signals {
		c.received <- sig
		<-time.After(time.Second)
	}
	close(c.received)
	<-time.After(time.Minute) // the worker is composed long after
	s := newSource(cfg)
	go s.listen(c.kept)
	<-time.After(time.Hour)
	notices := make([]interrupt.Notice, len(s.notices))
	for i := range notices {
		var err error
		if notices[i], err = s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return notices
}
