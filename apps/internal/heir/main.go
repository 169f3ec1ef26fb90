package heir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// patience is how long the heir tries to leave nothing.
const patience = 10 * time.Minute

// Invoked reports whether this process was started to be an heir.
func Invoked() bool { return len(os.Args) == 2 && os.Args[0] == name }

// Main waits for the worker's end, removes what that has left, and returns the
// exit code. What it cannot remove stays for Sweep.
func Main() int {
	// A service manager tells all processes of a service to end, and the worker
	// may not come to its end by itself.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // for who looks at a list of processes
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := inherit(ctx, os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "the worker has left %s: %v\n", os.Args[1], err)
		return 1
	}
	return 0
}

// inherit waits until it has the lock of an estate, and leaves nothing of it.
func inherit(ctx context.Context, dir string) error {
	lock, err := os.Open(filepath.Join(dir, lockName)) //nolint:gosec // the worker names it
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) //nolint:gosec // the worker names it, and has begun with it, as the last thing it does
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("wait for the worker's end: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	content, err := os.ReadFile(filepath.Join(dir, willName)) //nolint:gosec // the worker names it
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The worker has come to its end, at which it removes the rest.
	case err != nil:
		return err
	default:
		if err := settle(ctx, content); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir) //nolint:gosec // the worker names it
}

// settle has the engine of an estate leave nothing.
func settle(ctx context.Context, content []byte) error {
	var w Will
	if json.Unmarshal(content, &w) != nil || w.Shared {
		return nil // where the worker was killed while it wrote it, it had no engine yet
	}
	w.Worker.Capacity, w.Linux.Docker.Preload = 1, nil // it runs nothing
	log := command.NewLog(w.Linux.Log.Format, w.Linux.Log.Level, os.Stderr)
	log.InfoContext(ctx, "the worker has ended without removing what it had: that is done now")
	e, shut, err := parts.NewEngine(ctx, w.Worker, w.Linux, parts.Deployment{}, parts.Hooks{}, nil, log)
	if err != nil {
		return err
	}
	defer shut()
	return discard(ctx, e, log)
}

// discard removes all that an engine has of earlier processes.
func discard(ctx context.Context, e engine.Engine, log *slog.Logger) error {
	var errs []error
	if r, ok := e.(engine.Reattacher); ok {
		runs, err := r.Orphans(ctx)
		errs = append(errs, err)
		for _, run := range runs {
			log.InfoContext(ctx, "task of the worker is discarded", slog.String("run", run.String()))
			errs = append(errs, r.Discard(ctx, run))
		}
	}
	if v, ok := e.(engine.Volumes); ok {
		errs = append(errs, v.KeepVolumes(ctx, nil))
	}
	return errors.Join(errs...)
}
