package schedule_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/schedule"
)

type event struct {
	Key   string
	After time.Duration
}

func TestKeysComeDueAtTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := schedule.New[string]()
		start := time.Now()
		var (
			group sync.WaitGroup
			got   []event
		)
		group.Go(func() {
			s.Run(ctx, func(key string) {
				got = append(got, event{key, time.Since(start)})
				if key == "again" && len(got) < 4 {
					s.Set(key, time.Now().Add(time.Minute))
				}
			})
		})
		s.Set("late", start.Add(time.Hour))
		s.Set("moved", start.Add(3*time.Hour))
		s.Set("cleared", start.Add(time.Second))
		s.Set("again", start.Add(time.Minute))
		s.Clear("cleared")
		s.Clear("unknown")
		s.Set("moved", start.Add(30*time.Minute))
		s.Set("past", start.Add(-time.Second))
		<-time.After(4 * time.Hour)
		cancel()
		group.Wait()
		want := []event{
			{"past", 0},
			{"again", time.Minute},
			{"again", 2 * time.Minute},
			{"again", 3 * time.Minute},
			{"moved", 30 * time.Minute},
			{"late", time.Hour},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("due (-want +got):\n%s", diff)
		}
	})
}
