package taskcluster

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

// surplus is a worker that worker-manager may want to go.
type surplus struct {
	source *Termination
	unused atomic.Bool
}

func (s *surplus) Source(testing.TB) interrupt.Source { return s.source }

func (s *surplus) Announce(testing.TB) string {
	s.unused.Store(true)
	return "worker-manager: over capacity"
}

func TestTerminationConforms(t *testing.T) {
	interrupttest.TestOnce(t, func(tb testing.TB) interrupttest.Harness {
		tb.Helper()
		s := &surplus{}
		c, _ := serve(tb.(*testing.T), worker, map[string]http.HandlerFunc{terminate: func(w http.ResponseWriter, r *http.Request) {
			answer(200, map[string]any{"terminate": s.unused.Load(), "reason": "over capacity"})(w, r)
		}})
		s.source = NewTermination(c, 10*time.Millisecond, slog.New(slog.DiscardHandler))
		return s
	})
}

func TestTermination(t *testing.T) {
	yes := answer(200, map[string]any{"terminate": true})
	no := answer(200, map[string]any{"terminate": false, "reason": "needed"})
	for _, tt := range []struct {
		name    string
		answers []http.HandlerFunc
		cause   string
		after   time.Duration
	}{
		{"it is to go", []http.HandlerFunc{no, no, yes}, "worker-manager: the worker should terminate", 2 * time.Minute},
		{"an error is no answer", []http.HandlerFunc{refusal(400, "InputError", "no"), yes}, "worker-manager: the worker should terminate", time.Minute},
		{"it must not ask", []http.HandlerFunc{refusal(403, "InsufficientScopes", "no")}, "", 24 * time.Hour},
		{"nobody has an opinion", []http.HandlerFunc{refusal(404, "ResourceNotFound", "no")}, "", 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, m := serve(t, worker, map[string]http.HandlerFunc{terminate: inTurn(tt.answers...)})
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				start := time.Now()
				n, err := NewTermination(c, 0, slog.New(slog.DiscardHandler)).Wait(ctx)
				if n.Cause != tt.cause || (err == nil) != (tt.cause != "") || time.Since(start) != tt.after || !n.Deadline.IsZero() {
					t.Errorf("%+v, %v after %v; want %q after %v", n, err, time.Since(start), tt.cause, tt.after)
				}
				if got := len(m.requests(terminate)); got != len(tt.answers) {
					t.Errorf("asked %d times, want %d", got, len(tt.answers))
				}
			})
		})
	}
}
