package journalfile

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/journal"
)

// entry is the file of one run.
type entry struct {
	j    *Journal
	path string
	log  *slog.Logger

	mu      sync.Mutex
	file    *os.File // nil if there is none, or none any more
	size    int64    // of what is good of it
	pending []byte   // records that the disk did not take, to come before the next one
	warned  bool     // that records may be lost
}

// use has e append to f, of which so much is good.
func (e *entry) use(f *os.File, good int64) {
	e.file, e.size = f, good
	e.j.mu.Lock()
	defer e.j.mu.Unlock()
	e.j.open[e] = struct{}{}
}

// Add implements journal.Entry.
func (e *entry) Add(r journal.Record) {
	kind, body := encode(r)
	e.append(kind, body, kind == startedKind || kind == resolvingKind)
}

// append appends a record, and returns once it survives a crash of the host if
// it is to.
func (e *entry) append(kind string, body any, survives bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file == nil {
		return
	}
	framed, err := frame(kind, body)
	if err != nil {
		e.failed(err)
		return
	}
	// Without the claim, nothing that follows is of use: a disk that was full
	// gets all of it once there is room. What an attempt that failed has left
	// half-written is overwritten.
	framed = append(e.pending, framed...)
	if _, err := e.file.WriteAt(framed, e.size); err != nil {
		e.pending = framed
		e.failed(err)
		return
	}
	e.pending = nil
	e.size += int64(len(framed))
	if survives {
		if err := syncContent(e.file); err != nil {
			e.failed(err)
		}
	}
}

// failed takes note of a record that may be lost. It is called with mu locked.
func (e *entry) failed(err error) {
	e.j.tel.Count(context.Background(), Failures, 1)
	if e.warned {
		return
	}
	e.warned = true
	e.log.ErrorContext(context.Background(), "journal cannot be written: the run may be lost if the worker is killed",
		slog.String("file", e.path), slog.Any("error", err))
}

// Forget implements journal.Entry.
func (e *entry) Forget() {
	if e.close() {
		if err := os.Remove(e.path); err != nil {
			e.log.ErrorContext(context.Background(), "journal of a run that is over cannot be removed", slog.Any("error", err))
		}
	}
}

// close closes the file and reports whether it was open.
func (e *entry) close() bool {
	e.j.mu.Lock()
	delete(e.j.open, e)
	e.j.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file == nil {
		return false
	}
	if err := e.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		e.failed(err)
	}
	e.file = nil
	return true
}
