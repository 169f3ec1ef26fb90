package signals

import (
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
