// Package logfile records task logs in files that only the worker can read.
//
// Where a file takes no more, because the disk is full say, what is written
// last is kept in memory. A reader thus gets the head of the log, a line that
// says how much is missing, and the tail, which is where tasks say why they
// failed.
package logfile

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// DefaultTail is the Tail of a Config that says nothing of it.
const DefaultTail = 256 << 10

// Config is what an operator may choose.
type Config struct {
	// Dir is where the files are, and is made if need be. The files have no
	// names for longer than it takes to open them, where the system allows
	// that, so that none is left behind by a crash. The default is the
	// system's directory for temporary files.
	Dir string

	// Tail is how many bytes of a log are kept in memory once its file takes
	// no more, at least; at most it is twice as many. The default is
	// DefaultTail.
	Tail int
}

// Recorder records logs in files.
type Recorder struct {
	config Config
	log    *slog.Logger
}

// New returns a recorder. It fails if there is no directory to work in.
func New(c Config, log *slog.Logger) (*Recorder, error) {
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	if c.Tail <= 0 {
		c.Tail = DefaultTail
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for task logs: %w", err)
	}
	return &Recorder{config: c, log: log}, nil
}

// Record implements tasklog.Recorder. It does not fail: a log without a file is
// all tail.
func (r *Recorder) Record(id task.RunID) (tasklog.Recording, error) {
	rec := &recording{log: r.log.With(slog.String("run", id.String())), tail: tail{limit: r.config.Tail}}
	f, err := os.CreateTemp(r.config.Dir, "task-*.log") // with mode 0600
	if err != nil {
		rec.fail(err)
		return rec, nil
	}
	rec.file = f
	_ = os.Remove(f.Name()) // Close does where an open file cannot be removed
	return rec, nil
}
