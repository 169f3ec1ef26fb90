package signals

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"
)

// Caught are the signals to this process that interrupt, from when they were
// first heeded. A program catches them before all else: until then SIGTERM ends
// it, and SIGUSR1 is lost.
type Caught struct {
	received chan os.Signal
	kept     chan received // has room for more than can matter
	first    chan struct{} // closed with the first signal
	second   chan struct{} // closed with the second
	release  func()
}

// received is a signal, and when it came.
type received struct {
	signal os.Signal
	at     time.Time
}

// room is for how many signals there is room while nobody looks. What does not
// fit is lost, and says nothing new.
const room = 16

// Catch keeps signals from ending the process, until Release.
func Catch() *Caught {
	c := newCaught()
	signal.Notify(c.received, slices.Concat(stops(), finishes())...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.keep()
	}()
	c.release = sync.OnceFunc(func() {
		signal.Stop(c.received)
		close(c.received)
		<-done
	})
	return c
}

func newCaught() *Caught {
	return &Caught{received: make(chan os.Signal, room), kept: make(chan received, room), first: make(chan struct{}), second: make(chan struct{})}
}

// Release gives the signals back their effect.
func (c *Caught) Release() { c.release() }

// keep takes note of signals as they come, since their time counts from then on,
// whoever waits or not.
func (c *Caught) keep() {
	defer close(c.kept)
	n := 0
	for sig := range c.received {
		switch n++; n {
		case 1:
			close(c.first)
		case 2:
			close(c.second)
		}
		select {
		case c.kept <- received{sig, time.Now()}:
		default:
		}
	}
}

// Context returns a context that ends a while after the first signal, or with the
// second, whether they are still to come or not: for what precedes any task. The
// Source announces the signals all the same.
func (c *Caught) Context(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		select {
		case <-c.first:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.second:
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		wg.Wait()
	}
}
