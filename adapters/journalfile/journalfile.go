// Package journalfile keeps the worker's journal in files that only the worker
// can read: one for each run, which is only ever appended to.
//
// A file is a sequence of records, each with its length and a checksum before
// it. The first one is the claim. What a crash has left half-written at the end
// is dropped with the next record, and a file without a whole claim is removed;
// what is damaged otherwise is moved aside for an operator to look at. A file that
// the system does not let be read is left as it is: the task in it may be running.
// Records that are whole but not known, because a later version of the worker has
// written them, are passed over.
package journalfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// Config is what an operator may choose.
type Config struct {
	// Dir is where the files are, and is made if need be. One worker at a time
	// can use it.
	Dir string

	// Wait is how long to wait for the worker that uses Dir to end, as when it
	// makes way for this one. The default is not to wait.
	Wait time.Duration

	// Ask asks the process that uses Dir, by its lock file, to make way. It is
	// called once, if there is one. Without it, nobody is asked.
	Ask func(pid int, lock string) error
}

// Names of files.
const (
	suffix   = ".journal"
	aside    = ".unreadable"
	lockName = "lock"
)

// Failures is the count of records that could not be stored.
const Failures = "journal.failures"

// Journal is a journal in files.
type Journal struct {
	dir string
	tel telemetry.Telemetry
	log *slog.Logger

	mu   sync.Mutex
	open map[*entry]struct{}
}

var _ journal.Journal = (*Journal)(nil)

// Open returns the journal in cfg.Dir, which is this process's alone until the
// returned function is called or the process ends.
//
// Errors: [ErrInUse], and that of ctx while it waits.
func Open(ctx context.Context, cfg Config, tel telemetry.Telemetry, log *slog.Logger) (*Journal, func(), error) {
	if cfg.Dir == "" {
		return nil, nil, errors.New("open journal: no directory is configured")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	// It may have been made by somebody less careful: it holds credentials.
	if err := os.Chmod(cfg.Dir, 0o700); err != nil { //nolint:gosec // G302: a directory needs to be searched
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	unlock, err := lock(ctx, cfg, log)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{dir: cfg.Dir, tel: tel, log: log, open: map[*entry]struct{}{}}
	return j, sync.OnceFunc(func() {
		j.close()
		unlock()
	}), nil
}

// close leaves the entries as they are to the next process.
func (j *Journal) close() {
	j.mu.Lock()
	entries := j.open
	j.open = map[*entry]struct{}{}
	j.mu.Unlock()
	for e := range entries {
		e.close()
	}
}

// Runs implements journal.Journal. Its errors are those of the file system, with
// the name of the file.
func (j *Journal) Runs() ([]journal.Saved, error) {
	found, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	var runs []journal.Saved
	for _, f := range found {
		if !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		path := filepath.Join(j.dir, f.Name())
		s, _, err := j.read(path)
		if errors.Is(err, errUnfinished) {
			j.drop(path)
			continue
		}
		if errors.Is(err, errTorn) {
			j.setAside(path, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		runs = append(runs, s)
	}
	return runs, nil
}

// read returns the run that the file at path is about, and how much of the file
// is good. It fails with errUnfinished or errTorn if there is no telling which run
// that is, and with the error of the file system if the file cannot be read now.
func (j *Journal) read(path string) (journal.Saved, int64, error) {
	content, err := os.ReadFile(path) //nolint:gosec // G304: it is in the journal's directory
	if err != nil {
		return journal.Saved{}, 0, err
	}
	s, good, err := replay(content)
	if err != nil {
		return journal.Saved{}, 0, err
	}
	if rest := len(content) - good; rest > 0 {
		j.log.WarnContext(context.Background(), "the end of a journal is damaged and is left out",
			slog.String("file", path), slog.String("run", s.Run.String()), slog.Int("bytes", rest))
	}
	return s, int64(good), nil
}

// drop removes a file that a process has not come to write a claim to, since it
// was killed or the disk was full. The claim expires by itself.
func (j *Journal) drop(path string) {
	j.log.WarnContext(context.Background(), "a claim was not written to the end, and is forgotten",
		slog.String("file", path), slog.Any("error", os.Remove(path)))
	j.tel.Count(context.Background(), Failures, 1)
}

// setAside has a file that makes no sense bother nobody but the operator.
func (j *Journal) setAside(path string, why error) {
	err := os.Rename(path, path+aside)
	j.log.ErrorContext(context.Background(), "journal of a run cannot be read and is set aside",
		slog.String("file", path+aside), slog.Any("error", errors.Join(why, err)))
	j.tel.Count(context.Background(), Failures, 1)
}

// Begin implements journal.Journal.
func (j *Journal) Begin(s journal.Saved) journal.Entry {
	e := j.entry(s.Run)
	f, err := os.OpenFile(e.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		e.failed(err) // which nobody else has yet
		return e
	}
	e.use(f, 0)
	e.append(claimKind, claimOf(s), true)
	// The name of the file is to survive the host, too.
	if err := syncDir(j.dir); err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.failed(err)
	}
	return e
}

// Resume implements journal.Journal. Besides fs.ErrNotExist, its errors are
// those of the file system, and one for an entry that cannot be read.
func (j *Journal) Resume(id task.RunID) (journal.Entry, error) {
	e := j.entry(id)
	s, good, err := j.read(e.path)
	if err == nil && s.Run != id {
		err = fmt.Errorf("%s is about run %v: %w", e.path, s.Run, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("resume journal of run %v: %w", id, err)
	}
	f, err := os.OpenFile(e.path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("resume journal of run %v: %w", id, err)
	}
	if err := f.Truncate(good); err != nil {
		return nil, errors.Join(fmt.Errorf("resume journal of run %v: %w", id, err), f.Close())
	}
	e.use(f, good)
	return e, nil
}

func (j *Journal) entry(id task.RunID) *entry {
	return &entry{
		j: j, path: filepath.Join(j.dir, base(id)+suffix), log: j.log.With(slog.String("run", id.String())),
	}
}

// base returns the name of a run's file, without suffix. An ID that comes from
// elsewhere is no reason to write elsewhere.
func base(id task.RunID) string {
	return url.PathEscape(string(id.Task)) + "." + strconv.Itoa(id.Run)
}
