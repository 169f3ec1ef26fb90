package docker

import (
	"net"
	"sync"
)

// bounded is a listener that accepts no more connections than there are slots
// while those it has accepted are open. Others wait in the kernel.
type bounded struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  func()
}

func newBounded(l net.Listener, most int) *bounded {
	b := &bounded{Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	release := sync.OnceFunc(func() { <-b.slots })
	conn, err := b.Listener.Accept()
	if err != nil {
		release()
		return nil, err
	}
	return &boundedConn{conn, release}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.close()
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
