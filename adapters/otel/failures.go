package otel

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// failures logs what could not be recorded or sent, at most once a minute: a
// collector may be away for days.
type failures struct {
	log *slog.Logger

	mu     sync.Mutex
	last   time.Time
	silent int // how many were not logged since
}

// report logs that something was lost because of err, or counts it for the next time.
func (f *failures) report(ctx context.Context, what string, err error) {
	f.mu.Lock()
	if !f.last.IsZero() && time.Since(f.last) < time.Minute {
		f.silent++
		f.mu.Unlock()
		return
	}
	silent := f.silent
	f.last, f.silent = time.Now(), 0
	f.mu.Unlock()

	f.log.LogAttrs(ctx, slog.LevelWarn, "Telemetry was lost",
		slog.String("what", what), slog.String("error", text(err.Error())), slog.Int("notLogged", silent))
}
