// Package drainfile lets an operator drain a worker by a file: he puts it into
// the worker's directory, and the worker takes it away when it heeds it. The
// file holds no more than a word.
package drainfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/poll"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// name is that of the file in the directory.
const name = "drain"

// The words. Whatever else is in the file, or nothing, means finish.
const (
	finish = "finish"
	abort  = "abort"
)

// Config says where the file is expected, and how it is understood. Durations
// that are zero get the default that is given with them.
type Config struct {
	Dir   string        // writable by those alone who may drain the worker
	Every time.Duration // between looks at it; 1 second

	// Grace is how long the worker may take to save what running tasks leave
	// when they are aborted; 30 seconds.
	Grace time.Duration
}

// Source announces that the file was there.
type Source struct {
	cfg Config
	log *slog.Logger
}

var _ interrupt.Source = (*Source)(nil)

// New returns the source. The directory may be made later.
func New(cfg Config, log *slog.Logger) *Source {
	cfg.Every = cmp.Or(cfg.Every, time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 30*time.Second)
	return &Source{cfg, log}
}

// Wait implements interrupt.Source.
func (s *Source) Wait(ctx context.Context) (interrupt.Notice, error) {
	var notice interrupt.Notice
	err := poll.Until(ctx, s.cfg.Every, func(ctx context.Context) bool {
		word, ok, err := take(s.cfg.Dir)
		if err != nil {
			s.log.WarnContext(ctx, "look for drain file", slog.Any("error", err))
		}
		if !ok {
			return false
		}
		notice.Cause = "drain file"
		if word == abort {
			notice = interrupt.Notice{Cause: "drain file: abort", Deadline: time.Now().Add(s.cfg.Grace)}
		}
		return true
	})
	return notice, err
}

// take takes the file away and returns its word. It is renamed before it is
// read, so that a later one is not taken away unread.
func take(dir string) (word string, ok bool, err error) {
	taken := filepath.Join(dir, "."+name+".taken")
	err = os.Rename(filepath.Join(dir, name), taken)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	// It is enough that it was there: what follows is only about what is in it.
	content, err := os.ReadFile(taken) //nolint:gosec // G304: in the worker's own directory
	if err = errors.Join(err, os.Remove(taken)); err != nil {
		return "", true, err
	}
	return string(bytes.TrimSpace(content)), true, nil
}

// ErrNotTaken is returned by [Drain] if no worker took the file away.
var ErrNotTaken = errors.New("no worker heeds it")

// Drain puts a file into a directory that a worker watches, and waits until it
// is taken away. Running tasks may finish, or are aborted. If nobody takes the
// file until ctx is done, it is removed.
//
// Errors: ErrNotTaken; those of files.
func Drain(ctx context.Context, dir string, aborts bool) error {
	word := finish
	if aborts {
		word = abort
	}
	// A file that is there has a word in it at once.
	written, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	_, err = written.WriteString(word + "\n")
	path := filepath.Join(dir, name)
	if err = errors.Join(err, written.Close()); err == nil {
		err = os.Rename(written.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("drain: %w", errors.Join(err, os.Remove(written.Name())))
	}
	err = poll.Until(ctx, 50*time.Millisecond, func(context.Context) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
	if err == nil {
		return nil
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil // it was taken in the last moment
	} else if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return fmt.Errorf("drain file in %s: %w", dir, ErrNotTaken)
}
