package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// proxies serves the proxies of one task. Its socket is inside the network of
// the container, on loopback, where nobody but the task can reach it.
type proxies struct {
	server *http.Server
	done   sync.WaitGroup
}

// mostConnections bounds how many connections a task has to its proxies at a
// time. They take descriptors of the worker, which other tasks need, too.
const mostConnections = 256

// serveProxies serves handlers, by the host names that they are asked for, in
// the network namespace of a process.
func serveProxies(pid int, handlers map[string]http.Handler, log *slog.Logger) (*proxies, error) {
	l, err := listenInside(pid, "127.0.0.1:80")
	if err != nil {
		return nil, fmt.Errorf("serve proxies: %w", err)
	}
	p := &proxies{server: &http.Server{
		ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := r.Host
			if host, _, err := net.SplitHostPort(name); err == nil {
				name = host
			}
			h, ok := handlers[name]
			if !ok {
				http.Error(w, "there is no proxy "+name, http.StatusNotFound)
				return
			}
			h.ServeHTTP(w, r)
		}),
	}}
	p.done.Go(func() {
		if err := p.server.Serve(newBounded(l, mostConnections)); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("serve proxies", slog.Any("error", err))
		}
	})
	return p, nil
}

// close ends all connections. It may be called of nil.
func (p *proxies) close() {
	if p != nil {
		_ = p.server.Close() // it has nothing to lose
		p.done.Wait()
	}
}

// listenInside listens in the network namespace of a process. The thread that
// has been there is not used for anything else: it ends with its goroutine.
func listenInside(pid int, address string) (net.Listener, error) {
	type result struct {
		listener net.Listener
		err      error
	}
	results := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlock
		l, err := func() (net.Listener, error) {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return nil, err
			}
			defer func() { _ = ns.Close() }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("enter network of container: %w", err)
			}
			var lc net.ListenConfig
			return lc.Listen(context.Background(), "tcp4", address)
		}()
		results <- result{l, err}
	}()
	r := <-results
	return r.listener, r.err
}
