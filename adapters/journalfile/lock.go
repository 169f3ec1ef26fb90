package journalfile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrInUse is returned if another worker uses the directory.
var ErrInUse = errors.New("another worker uses the directory")

// poll is how often a lock is tried while it is waited for. The system can wait
// by itself, but not until a context is done.
const poll = 50 * time.Millisecond

// lock makes the directory this process's alone, and returns what ends that.
// The system ends it with the process, however that ends. Waiting is told once:
// an operator who sees nothing for a minute does not know what for.
func lock(ctx context.Context, cfg Config, log *slog.Logger) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cfg.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Wait, errLate)
	defer cancel()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for ask, told := cfg.Ask, cfg.Wait <= 0; ; {
		taken, err := tryLock(f)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if taken {
			break
		}
		if pid, err := strconv.Atoi(owner(f)); ask != nil && err == nil {
			if err := ask(pid, f.Name()); err != nil {
				// It may have ended just now.
				if taken, again := tryLock(f); again == nil && taken {
					break
				}
				return nil, fmt.Errorf("%w %s, and cannot be asked to make way: process %d: %w", ErrInUse, cfg.Dir, pid, err)
			}
			ask = nil
		}
		if !told {
			log.InfoContext(ctx, "waiting for the worker that uses the directory to end",
				slog.String("dir", cfg.Dir), slog.String("process", owner(f)), slog.String("atMost", cfg.Wait.String()))
			told = true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errLate) {
				return nil, fmt.Errorf("%w %s, process %s: %w", ErrInUse, cfg.Dir, owner(f), cause)
			}
			return nil, fmt.Errorf("%w %s: process %s", ErrInUse, cfg.Dir, owner(f))
		}
	}
	// Whoever finds the directory locked wants to know by whom. It is locked
	// without that, too.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() { _ = f.Close() }, nil
}

var errLate = errors.New("waited long enough")

// owner returns the process that has the lock, as it says itself.
func owner(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid := strings.TrimSpace(string(b[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return "unknown"
	}
	return pid
}
