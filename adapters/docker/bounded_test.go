package docker

import (
	"errors"
	"net"
	"testing"
)

// A task that opens connections without end takes no more than its share of the
// worker's descriptors.
func TestBoundedListener(t *testing.T) {
	var lc net.ListenConfig
	inner, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBounded(inner, 2)
	type accepted struct {
		conn net.Conn
		err  error
	}
	all := make(chan accepted)
	go func() {
		for {
			conn, err := l.Accept()
			all <- accepted{conn, err}
			if err != nil {
				return
			}
		}
	}()
	var dialer net.Dialer
	for range 4 {
		conn, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	first, second := <-all, <-all
	if first.err != nil || second.err != nil {
		t.Fatal(first.err, second.err)
	}
	if got, want := len(l.slots), cap(l.slots); got != want {
		t.Errorf("%d of %d slots are taken", got, want)
	}
	// A connection that ends, even twice, makes room for one.
	_, _ = first.conn.Close(), first.conn.Close()
	third := <-all
	if third.err != nil {
		t.Fatal(third.err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if last := <-all; !errors.Is(last.err, net.ErrClosed) {
		t.Errorf("with two connections open, a closed listener accepts another one: %v", last.err)
	}
	_, _ = second.conn.Close(), third.conn.Close()
	if got := len(l.slots); got != 0 {
		t.Errorf("%d slots are still taken", got)
	}
}
