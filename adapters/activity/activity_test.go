package activity

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness has a worker end its only task, and have no other one.
type harness struct{ source *Source }

func (h harness) Source(testing.TB) interrupt.Source { return h.source }

func (h harness) Announce(testing.TB) string {
	h.source.Ended()
	return "no task for 5ms"
}

func TestConforms(t *testing.T) {
	interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		s, stop := New(Config{Idle: 5 * time.Millisecond})
		tb.Cleanup(stop)
		s.Began()
		return harness{s}
	})
}

// A step happens at a time after the start.
type step struct {
	at   time.Duration
	what func(*Source)
}

func TestLimits(t *testing.T) {
	began, ended := (*Source).Began, (*Source).Ended
	for _, tt := range []struct {
		name  string
		cfg   Config
		steps []step
		want  map[time.Duration]string // causes, by when they are announced
	}{
		{"there are none", Config{}, []step{{time.Hour, began}, {2 * time.Hour, ended}}, nil},
		{"no task ever", Config{Idle: 5 * time.Minute}, nil, map[time.Duration]string{5 * time.Minute: "no task for 5m0s"}},
		{
			"a task comes in time, and another one before it is over",
			Config{Idle: 5 * time.Minute},
			[]step{{4 * time.Minute, began}, {20 * time.Minute, began}, {21 * time.Minute, ended}, {40 * time.Minute, ended}},
			map[time.Duration]string{45 * time.Minute: "no task for 5m0s"},
		},
		{
			"a task comes when the worker is idle for as long as it may be",
			Config{Idle: 5 * time.Minute},
			[]step{{time.Minute, began}, {2 * time.Minute, ended}, {6 * time.Minute, began}, {8 * time.Minute, ended}},
			map[time.Duration]string{13 * time.Minute: "no task for 5m0s"},
		},
		{
			"life is over, whatever runs",
			Config{Life: time.Hour},
			[]step{{50 * time.Minute, began}},
			map[time.Duration]string{time.Hour: "the worker has lived for 1h0m0s"},
		},
		{
			"both of them",
			Config{Idle: 10 * time.Minute, Life: time.Hour},
			[]step{{20 * time.Minute, began}, {30 * time.Minute, ended}},
			map[time.Duration]string{
				10 * time.Minute: "no task for 10m0s",
				40 * time.Minute: "no task for 10m0s",
				time.Hour:        "the worker has lived for 1h0m0s",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s, stop := New(tt.cfg)
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() {
					for _, step := range tt.steps {
						<-time.After(time.Until(start.Add(step.at)))
						step.what(s)
					}
				})
				got := map[time.Duration]string{}
				for {
					n, err := s.Wait(ctx)
					if err != nil {
						break
					}
					if !n.Deadline.IsZero() {
						t.Errorf("%q has a deadline", n.Cause)
					}
					got[time.Since(start)] = n.Cause
				}
				wg.Wait()
				if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("notices (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNobodyNeedsToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := New(Config{Idle: time.Minute, Life: time.Hour})
		for range 10 {
			<-time.After(2 * time.Minute)
			s.Began()
			s.Ended()
		}
		stop()
		<-time.After(time.Hour)
		if got := len(s.notices); got != cap(s.notices) {
			t.Errorf("%d notices are kept, want %d", got, cap(s.notices))
		}
	})
}
