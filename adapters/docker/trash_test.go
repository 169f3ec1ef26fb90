package docker

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestCloseDoesNotWaitForAFrozenDaemon has a worker end with as much to remove as
// it may have.
func TestCloseDoesNotWaitForAFrozenDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrash(&Engine{ctx: t.Context(), config: Config{}.withDefaults(), log: slog.New(slog.DiscardHandler)})
		frozen := func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		for range 32 {
			tr.containers.Go(func() { tr.remove("container", "c", frozen, tr.hurry) })
			tr.others.Go(func() { tr.remove("network", "n", frozen, tr.last) })
		}
		began := time.Now()
		tr.close(callTime)
		if took := time.Since(began); took > callTime {
			t.Errorf("it took %v", took)
		}
	})
}
