package taskcluster

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// dated answers as h does, with a clock that is so far ahead of this host's.
func dated(ahead time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		h(w, r)
	}
}

// However far the clocks are apart, a lease lasts as long as the queue says.
func TestLeasesLastWhateverTheClockSays(t *testing.T) {
	const lease = 20 * time.Minute
	for _, ahead := range []time.Duration{0, time.Second, -3 * time.Second, 14 * time.Minute, -14 * time.Minute, 2 * time.Hour, -2 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				granted := answer(200, map[string]any{"takenUntil": time.Now().Add(ahead + lease), "credentials": map[string]any{}})
				c, _ := serve(t, worker, map[string]http.HandlerFunc{"POST /api/queue/v1/task/T/runs/1/reclaim": dated(ahead, granted)})
				cl := hold(c, time.Minute)
				if err := cl.Reclaim(t.Context()); err != nil {
					t.Fatal(err)
				}
				if left := time.Until(cl.TakenUntil()); left > lease+greatestDelay || left < lease-greatestDelay {
					t.Errorf("%v are left of the lease, want %v", left, lease)
				}
			})
		})
	}
}

// An answer that lies unread, since the worker's process is stopped say, makes no
// lease longer.
func TestLeasesRunWhileAnAnswerIsOnItsWay(t *testing.T) {
	const lease, delay = 20 * time.Minute, 10 * time.Minute
	for _, ahead := range []time.Duration{0, -14 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := worker
				cfg.CallTimeout = time.Hour
				granted := answer(200, map[string]any{"takenUntil": time.Now().Add(ahead + lease), "credentials": map[string]any{}})
				c, _ := serve(t, cfg, map[string]http.HandlerFunc{
					"POST /api/queue/v1/task/T/runs/1/reclaim": dated(ahead, func(w http.ResponseWriter, r *http.Request) {
						granted(w, r)
						<-time.After(delay)
					}),
				})
				cl := hold(c, time.Minute)
				if err := cl.Reclaim(t.Context()); err != nil {
					t.Fatal(err)
				}
				if left := time.Until(cl.TakenUntil()); left > lease-delay+greatestDelay || left < lease-delay-greatestDelay {
					t.Errorf("%v are left of the lease, want %v", left, lease-delay)
				}
			})
		})
	}
}

// The monotonic clock is what goes on evenly: a time that lacks its reading would
// be compared with a clock that may be set anew.
func TestLeasesGoByTheMonotonicClock(t *testing.T) {
	now := time.Now()
	r := reading{host: now}
	end := r.lasting(now.Add(time.Minute).Round(0))
	if end == end.Round(0) { //nolint:staticcheck // == tells of the reading, which Equal does not
		t.Error("the end of a lease has no reading of the monotonic clock")
	}
	if got := end.Sub(now); got != time.Minute {
		t.Errorf("%v are left of the lease, want a minute", got)
	}
}
