package devqueue

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
)

const (
	// headerTimeout bounds how long a client may take to send its headers.
	headerTimeout = 30 * time.Second
	// shutTimeout bounds how long calls in flight may go on when the server
	// shuts.
	shutTimeout = 5 * time.Second
)

// route sends requests for contents and calls of APIs to their handlers. It is
// no http.ServeMux, which would redirect calls whose parameters hold "//" or
// "..".
func route(contents, apis http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, content.Path) {
			contents.ServeHTTP(w, r)
			return
		}
		apis.ServeHTTP(w, r)
	})
}

// serve serves the listener and runs the background work beside it, until the
// returned function is called.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, background func(context.Context), log *slog.Logger) func() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout,
		// Cancelling it ends the calls that wait for a task.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var group sync.WaitGroup
	group.Go(func() { background(ctx) })
	group.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.ErrorContext(ctx, "devqueue stopped serving", slog.String("error", err.Error()))
		}
	})
	return func() error {
		cancel()
		late, cancelLate := context.WithTimeout(context.WithoutCancel(ctx), shutTimeout)
		defer cancelLate()
		err := server.Shutdown(late)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		group.Wait()
		return err
	}
}
