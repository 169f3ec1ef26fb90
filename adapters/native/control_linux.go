package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

// controlAddress returns the address of the supervisor's socket in its state
// directory, by way of the descriptor, as the paths of sockets are of 107 bytes
// at most. Nobody but the worker can reach it, since the directory is its own.
func controlAddress(state *os.File) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: filepath.Join(descriptor(int(state.Fd())), supervisor.ControlSocket)}
}

// listen makes the supervisor's socket in its state directory.
func listen(state *os.File) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	listener := os.NewFile(uintptr(fd), "listener")
	if err = unix.Bind(fd, controlAddress(state)); err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make control socket: %w", err), listener.Close())
	}
	return listener, nil
}

// connect connects to the supervisor with the given state directory.
func (b *berth) connect(state *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	conn := os.NewFile(uintptr(fd), "control")
	// It does not wait, but fails where there is no room in the queue.
	if err := unix.Connect(fd, controlAddress(state)); err != nil {
		return errors.Join(fmt.Errorf("connect to supervisor: %w", err), conn.Close())
	}
	b.conn, b.requests, b.events = conn, json.NewEncoder(conn), json.NewDecoder(conn)
	return nil
}

// request sends a request. A supervisor reads at any time, so that this does
// not last. One that does not is of no use any more.
func (b *berth) request(r supervisor.Request) error {
	b.sending.Lock()
	defer b.sending.Unlock()
	if err := b.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	return b.requests.Encode(r)
}

// next returns the next event, for which it waits no longer than patience.
func (b *berth) next(patience time.Duration) (supervisor.Event, error) {
	var event supervisor.Event
	err := b.conn.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		err = b.events.Decode(&event)
	}
	return event, errors.Join(err, b.conn.SetReadDeadline(time.Time{}))
}
