package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// The suffixes of the files of a run.
const (
	logSuffix   = ".log"
	marksSuffix = ".position"
)

func (r *Recorder) path(id task.RunID, suffix string) string {
	return filepath.Join(r.config.Dir, base(id)+suffix)
}

// base returns the name of a run's files, without suffix. An ID that comes from
// elsewhere is no reason to write elsewhere.
func base(id task.RunID) string {
	return url.PathEscape(string(id.Task)) + "." + strconv.Itoa(id.Run)
}

// Resume implements tasklog.Recorder. Besides fs.ErrNotExist, its errors are
// those of the file system.
func (r *Recorder) Resume(id task.RunID) (tasklog.Recording, tasklog.Position, error) {
	if r.config.Dir == "" {
		return nil, 0, &fs.PathError{Op: "resume task log", Path: id.String(), Err: fs.ErrNotExist}
	}
	rec, at, err := r.resume(id)
	if err != nil {
		return nil, 0, fmt.Errorf("resume task log: %w", err)
	}
	return rec, at, nil
}

func (r *Recorder) resume(id task.RunID) (_ *recording, _ tasklog.Position, err error) {
	rec := r.recording(id)
	var last mark
	if rec.marks, last, err = openMarks(r.path(id, marksSuffix)); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rec.release())
		}
	}()
	if rec.file, err = os.OpenFile(r.path(id, logSuffix), os.O_RDWR|os.O_APPEND, 0); err != nil {
		return nil, 0, err
	}
	s, err := rec.file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if s.Size() < last.length {
		return nil, 0, fmt.Errorf("%s: %d bytes are missing: %w", rec.file.Name(), last.length-s.Size(), fs.ErrNotExist)
	}
	if err := rec.file.Truncate(last.length); err != nil {
		return nil, 0, err
	}
	rec.head, rec.total, rec.reached = last.length, last.length, last.at
	if last.length > 0 {
		var b [1]byte
		if _, err := rec.file.ReadAt(b[:], last.length-1); err != nil {
			return nil, 0, err
		}
		rec.midLine = b[0] != '\n'
	}
	return rec, rec.reached, nil
}

// Keep implements tasklog.Recorder.
func (r *Recorder) Keep(ids ...task.RunID) error {
	if r.config.Dir == "" {
		return nil
	}
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil {
		return fmt.Errorf("look for task logs of earlier processes: %w", err)
	}
	var keep []string
	for _, id := range ids {
		keep = append(keep, base(id))
	}
	for _, e := range entries {
		suffix := filepath.Ext(e.Name())
		if suffix != logSuffix && suffix != marksSuffix || slices.Contains(keep, e.Name()[:len(e.Name())-len(suffix)]) {
			continue
		}
		if e := os.Remove(filepath.Join(r.config.Dir, e.Name())); e != nil {
			err = errors.Join(err, fmt.Errorf("remove task log of an earlier process: %w", e))
		}
	}
	return err
}

// remove removes the files of a run, if there are any. The log comes last, as
// nothing is resumed without the other.
func (r *Recorder) remove(id task.RunID) error {
	return removeFiles(r.path(id, marksSuffix), r.path(id, logSuffix))
}

func removeFiles(names ...string) error {
	var err error
	for _, name := range names {
		if e := os.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
