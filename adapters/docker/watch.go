package docker

import (
	"sync"
	"time"
)

// regularly returns a channel that yields something from time to time, for files
// of which nobody tells when they grow, and a function that ends it.
func regularly(interval time.Duration) (changed <-chan struct{}, stop func()) {
	c, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(c)
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-end:
				return
			}
			select {
			case c <- struct{}{}:
			case <-end:
				return
			}
		}
	}()
	return c, sync.OnceFunc(func() { close(end) })
}
