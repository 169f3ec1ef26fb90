package main

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var terminal bytes.Buffer
		p := &progress{terminal: &terminal}
		log := p.through(&terminal)
		stop := p.tick(func() string { return "task" })
		synctest.Wait()
		write := func(text string) {
			if _, err := io.WriteString(log, text); err != nil {
				t.Error(err)
			}
		}
		write("one\n")
		write("half ")
		<-time.After(1500 * time.Millisecond) // the line is not shown within another one
		write("two\n")
		<-time.After(time.Second)
		synctest.Wait()
		stop()
		want := "\r\x1b[Ktask, 0s" + // at first
			"\r\x1b[Kone\ntask, 0s" + // below what scrolls
			"\r\x1b[Khalf two\ntask, 1s" +
			"\r\x1b[Ktask, 2s" +
			"\r\x1b[K" // removed
		if diff := cmp.Diff(want, terminal.String()); diff != "" {
			t.Errorf("terminal (-want +got):\n%s", diff)
		}
	})
}

func TestNoProgress(t *testing.T) {
	p := &progress{}
	var out bytes.Buffer
	if got := p.through(&out); got != io.Writer(&out) {
		t.Errorf("output passes through %T", got)
	}
	p.tick(func() string { return "task" })()
	p.show("task")
	if out.Len() > 0 {
		t.Errorf("output is %q, want none", out.String())
	}
}
