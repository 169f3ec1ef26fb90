package poll

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntil(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patience time.Duration
		asked    int // times
		took     time.Duration
		err      error
	}{
		{"it is so at once", time.Hour, 1, time.Second, nil},
		{"it is so in the end", time.Hour, 4, 3*time.Minute + 4*time.Second, nil},
		{"it is never so", 10 * time.Minute, 10, 10 * time.Minute, context.DeadlineExceeded},
		{"there is no time", 0, 0, 0, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
				defer cancel()
				start, asked := time.Now(), 0
				err := Until(ctx, time.Minute, func(context.Context) bool {
					asked++
					<-time.After(time.Second)
					return tt.err == nil && asked == tt.asked
				})
				if asked != tt.asked || time.Since(start) != tt.took || !errors.Is(err, tt.err) {
					t.Errorf("asked %d times in %v, %v; want %d times in %v, %v", asked, time.Since(start), err, tt.asked, tt.took, tt.err)
				}
			})
		})
	}
}
