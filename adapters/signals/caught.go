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
	return &Caught{received: make(chan os.Signal, room), kept: make(chan received, room), first: make(chan struct{})}
}

// Release gives the signals back their effect.
func (c *Caught) Release() { c.release() }

// keep takes note of signals as they come, since their time counts from then on,
// whoever waits or not.
func (c *Caught) keep() {
	defer close(c.kept)
	first := sync.OnceFunc(func() { close(c.first) })
	for sig := range c.received {
		first()
		select {
		case c.kept <- received{sig, time.Now()}:
		default:
		}
	}
}

// Context returns a context that ends with the first signal, which may have come
// already: for what precedes any task. The signal is announced all the same by
// the Source.
func (c *Caught) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	select {
	case <-c.first:
		cancel()
		return ctx, cancel
	default:
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c.first:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		wg.Wait()
	}
}
