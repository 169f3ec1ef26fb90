// Package logfile records task logs in files that only the worker can read.
//
// Where a file takes no more, because the disk is full or the log has reached
// the limit of the configuration, what is written last is kept in memory. A reader thus gets the head of the log, a line that
// says how much is missing, and the tail, which is where tasks say why they
// failed.
//
// With a directory of its own, a recorder finds the logs again that a process
// has left which was killed. Beside each log is a file that says how long the
// log is and which position of the engine's output that is. It is written after
// the log, so that a kill between the two costs only what was not recorded yet,
// which the engine yields again. Nothing is synced: a crash of the host ends
// the task as well.
package logfile

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// DefaultTail is the Tail of a Config that says nothing of it.
const DefaultTail = 256 << 10

// Config is what an operator may choose.
type Config struct {
	// Dir is where the files are, and is made if need be. It is for one
	// recorder alone. Without one, the files are in the system's directory for
	// temporary files, have no names for longer than it takes to open them,
	// where the system allows that, and cannot be found again.
	Dir string

	// Tail is how many bytes of a log are kept in memory once its file takes
	// no more, at least; at most it is twice as many. The default is
	// DefaultTail.
	Tail int

	// Max is how many bytes the file of a log has at most, so that a task that
	// prints without end does not fill the disk. Without it there is no limit.
	Max int64

	// MaxSetting is what operators know Max by. A log that has reached it says
	// so.
	MaxSetting string
}

// Recorder records logs in files.
type Recorder struct {
	config Config
	log    *slog.Logger
}

// New returns a recorder. It fails if there is no directory to work in.
func New(c Config, log *slog.Logger) (*Recorder, error) {
	if c.Tail <= 0 {
		c.Tail = DefaultTail
	}
	if c.Dir != "" {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory for task logs: %w", err)
		}
	}
	return &Recorder{config: c, log: log}, nil
}

// Record implements tasklog.Recorder. It does not fail: a log without a file is
// all tail.
func (r *Recorder) Record(id task.RunID) (tasklog.Recording, error) {
	rec := r.recording(id)
	if err := r.create(rec, id); err != nil {
		rec.fail(err)
	}
	return rec, nil
}

func (r *Recorder) recording(id task.RunID) *recording {
	rec := &recording{log: r.log.With(slog.String("run", id.String())), tail: tail{limit: r.config.Tail}, most: math.MaxInt64}
	if r.config.Max > 0 {
		rec.most, rec.setting = r.config.Max, r.config.MaxSetting
	}
	return rec
}

// create makes the files of a recording. If it fails, there are none.
func (r *Recorder) create(rec *recording, id task.RunID) error {
	if r.config.Dir == "" {
		f, err := os.CreateTemp("", "task-*.log") // with mode 0600
		if err != nil {
			return err
		}
		rec.file = f
		_ = os.Remove(f.Name()) // Close does where an open file cannot be removed
		return nil
	}
	if err := r.remove(id); err != nil {
		return err
	}
	file, err := os.OpenFile(r.path(id, logSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	marks, err := createMarks(r.path(id, marksSuffix))
	if err != nil {
		return errors.Join(err, file.Close(), r.remove(id))
	}
	rec.file, rec.marks = file, marks
	return nil
}
