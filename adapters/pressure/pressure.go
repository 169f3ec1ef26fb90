// Package pressure announces that a host runs out of disk space or memory, so
// that its worker takes on no more tasks, which would only fail.
package pressure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/poll"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Config says what is too little. Durations that are zero get the default that
// is given with them.
type Config struct {
	Dirs   []string // on whose file systems there has to be space; their parents count where they do not exist yet
	Disk   int64    // bytes; none is too little if zero
	Memory int64    // bytes, counting what the system can free at once; none is too little if zero

	Every time.Duration // between measurements; 10 seconds
	For   time.Duration // how long there has to be too little, since tasks give back what they took; 1 minute
}

// Source announces that there is too little of something. Running tasks may
// finish, which gives back what they use.
type Source struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	resources []*resource
}

var _ interrupt.Source = (*Source)(nil)

// resource is something of which there can be too little.
type resource struct {
	name      string
	least     int64
	free      func() (int64, error)
	low       time.Time // since when there is too little; zero if there is enough
	announced bool
}

// New returns the source. It fails if something cannot be measured here.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	cfg.Every = cmp.Or(cfg.Every, 10*time.Second)
	cfg.For = cmp.Or(cfg.For, time.Minute)
	s := &Source{cfg: cfg, log: log}
	if cfg.Disk > 0 {
		for _, dir := range cfg.Dirs {
			s.resources = append(s.resources, &resource{name: "disk space at " + dir, least: cfg.Disk, free: func() (int64, error) { return freeAt(dir) }})
		}
	}
	if cfg.Memory > 0 {
		s.resources = append(s.resources, &resource{name: "memory", least: cfg.Memory, free: freeMemory})
	}
	for _, r := range s.resources {
		if _, err := r.free(); err != nil {
			return nil, fmt.Errorf("measure %s: %w", r.name, err)
		}
	}
	return s, nil
}

// Wait implements interrupt.Source.
func (s *Source) Wait(ctx context.Context) (interrupt.Notice, error) {
	var notice interrupt.Notice
	err := poll.Until(ctx, s.cfg.Every, func(ctx context.Context) (found bool) {
		notice.Cause, found = s.measure(ctx)
		return found
	})
	return notice, err
}

// measure returns of what there has been too little for long, once for each.
func (s *Source) measure(ctx context.Context) (cause string, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.resources {
		free, err := r.free()
		switch {
		case err != nil:
			s.log.WarnContext(ctx, "what is left cannot be measured", slog.String("of", r.name), slog.Any("error", err))
		case free >= r.least:
			r.low = time.Time{}
		case r.low.IsZero():
			s.log.WarnContext(ctx, "little is left", slog.String("of", r.name), slog.Int64("bytes", free), slog.Int64("least", r.least))
			r.low = time.Now()
		case time.Since(r.low) >= s.cfg.For && !r.announced:
			r.announced = true
			return fmt.Sprintf("low %s: %s left, at least %s is needed", r.name, mebibytes(free), mebibytes(r.least)), true
		}
	}
	return "", false
}

// freeAt returns what is free at a directory, or where it will be made.
func freeAt(dir string) (int64, error) {
	for {
		free, err := freeDisk(dir)
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return free, err
		}
		dir = parent
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
