package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress is one line at the bottom of a terminal that says what goes on. Logs
// that go to the same terminal pass through it. The zero progress shows nothing.
type progress struct {
	terminal io.Writer // nil if there is none

	mu     sync.Mutex
	text   string
	midway bool // the last line that passed through has not ended
}

// clearLine moves to the start of the line and removes what is there.
const clearLine = "\r\x1b[K"

// show replaces the line; an empty text removes it.
func (p *progress) show(text string) {
	if p.terminal == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	if !p.midway {
		_, _ = fmt.Fprint(p.terminal, clearLine+text)
	}
}

// tick shows what for as long as it goes on, with the time it has taken, until
// the returned function is called.
func (p *progress) tick(what func() string) (stop func()) {
	if p.terminal == nil {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		start := time.Now()
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			p.show(fmt.Sprintf("%s, %v", what(), time.Since(start).Round(time.Second)))
			select {
			case <-ticker.C:
			case <-done:
				p.show("")
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// through returns a writer to w, whose output scrolls above the line.
func (p *progress) through(w io.Writer) io.Writer {
	if p.terminal == nil {
		return w
	}
	return &above{p, w}
}

type above struct {
	p *progress
	w io.Writer
}

func (a *above) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if !a.p.midway {
		_, _ = fmt.Fprint(a.p.terminal, clearLine)
	}
	n, err := a.w.Write(b)
	if len(b) > 0 {
		a.p.midway = b[len(b)-1] != '\n'
	}
	if !a.p.midway {
		_, _ = fmt.Fprint(a.p.terminal, a.p.text)
	}
	return n, err
}
