// Package poll asks for something again and again until it is so.
package poll

import (
	"context"
	"time"
)

// Until calls ask at once, and then each time that so long has passed since it
// returned, until it returns true. The error is that of ctx.
func Until(ctx context.Context, every time.Duration, ask func(context.Context) bool) error {
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ask(ctx) {
			return nil
		}
		timer.Reset(every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
