package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// recording is the log of one run: a file that holds its head and, once that
// takes no more, a tail in memory. Positions count all bytes ever written.
type recording struct {
	log     *slog.Logger
	most    int64  // bytes that the file may have
	setting string // that says so

	mu       sync.Mutex
	file     *os.File // nil if there is none
	marks    *marks   // nil if the recording cannot be resumed
	reached  tasklog.Position
	head     int64 // bytes in file
	cause    error // why the file takes no more; nil as long as it does
	tail     tail  // what follows the head, or the last of it
	total    int64 // bytes written
	midLine  bool
	unmarked bool // a mark could not be stored
	draft    bool // what is written is not for the next process
	sealed   bool
	closed   bool
	changed  chan struct{} // closed upon the next change; nil if nobody waits
}

// Write implements tasklog.Recording.
func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write(p, r.reached)
	return len(p), nil
}

// Append implements tasklog.Recording.
func (r *recording) Append(p []byte, at tasklog.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write(p, at)
}

func (r *recording) write(p []byte, at tasklog.Position) {
	if r.sealed || len(p) == 0 && at == r.reached {
		return
	}
	n := 0
	if r.cause == nil {
		n = r.store(p)
	}
	r.tail.write(p[n:])
	r.total += int64(len(p))
	if len(p) > 0 {
		r.midLine = p[len(p)-1] != '\n'
	}
	r.reached = at
	r.mark()
	r.announce()
}

// store appends to the file what that takes of p. A process before may have left
// more than the file may have now.
func (r *recording) store(p []byte) int {
	n, err := r.file.Write(p[:min(int64(len(p)), max(0, r.most-r.head))])
	r.head += int64(n)
	switch {
	case err != nil:
		r.fail(err)
	case n < len(p):
		r.cause = fmt.Errorf("it has reached the limit of %d bytes (%s)", r.most, r.setting)
		r.log.WarnContext(context.Background(), "task log has reached its limit", slog.Int64("bytes", r.most))
	}
	return n
}

// mark notes where the file is, for the next process, but for a draft. Once the
// file takes no more it stays where it was: what is in memory is for the engine to
// yield again.
func (r *recording) mark() {
	if r.marks == nil || r.cause != nil || r.draft {
		return
	}
	if err := r.marks.set(mark{length: r.head, at: r.reached}); err != nil && !r.unmarked {
		r.unmarked = true
		r.log.ErrorContext(context.Background(), "position in task log cannot be stored", slog.Any("error", err))
	}
}

// Draft implements tasklog.Recording.
func (r *recording) Draft(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draft = on; !r.closed {
		r.mark()
	}
}

// MidLine implements tasklog.Recording.
func (r *recording) MidLine() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.midLine
}

// fail notes why the file takes no more.
func (r *recording) fail(err error) {
	r.log.ErrorContext(context.Background(), "task log cannot be written to its file", slog.Any("error", err))
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	r.cause = err
}

// announce wakes whoever waits for a change.
func (r *recording) announce() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Open implements tasklog.Recording.
func (r *recording) Open() (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &reader{
		ctx:    context.Background(),
		cancel: func() {},
		from: &recording{
			file: r.file, head: r.head, cause: r.cause,
			tail: tail{bytes: slices.Clone(r.tail.bytes)}, total: r.total, sealed: true,
		},
	}, nil
}

// Follow implements tasklog.Recording.
func (r *recording) Follow(ctx context.Context) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	return &reader{ctx: ctx, cancel: cancel, from: r}, nil
}

// Seal implements tasklog.Recording.
func (r *recording) Seal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = true
	r.announce()
	return nil
}

// Close implements tasklog.Recording. Readers that are open fail once they need
// the file.
func (r *recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = true
	r.announce()
	if r.closed || r.file == nil {
		return nil
	}
	r.closed = true
	names := []string{r.file.Name()}
	if r.marks != nil {
		names = []string{r.marks.file.Name(), r.file.Name()}
	}
	if err := errors.Join(r.release(), removeFiles(names...)); err != nil {
		return fmt.Errorf("remove task log: %w", err)
	}
	return nil
}

// release closes the files.
func (r *recording) release() error {
	var err error
	if r.file != nil {
		err = r.file.Close()
	}
	if r.marks != nil {
		err = errors.Join(err, r.marks.file.Close())
	}
	return err
}

// piece is what is at a position of a recording.
type piece struct {
	inFile  int64           // bytes of the file from that position on
	text    []byte          // otherwise: text to hand out
	next    int64           // otherwise: the position after text
	end     bool            // otherwise: there is and will be nothing
	changed <-chan struct{} // otherwise: what to wait for
}

// at returns what is at a position, which is within a line or not.
func (r *recording) at(pos int64, midLine bool) piece {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := r.total - int64(len(r.tail.bytes))
	switch {
	case pos < r.head:
		return piece{inFile: r.head - pos}
	case pos < start:
		// What is left begins within a line, more likely than not.
		start += int64(r.tail.firstLine())
		return piece{text: r.gap(start-pos, midLine), next: start}
	case pos < r.total:
		return piece{text: slices.Clone(r.tail.bytes[pos-start:]), next: r.total}
	case r.sealed:
		return piece{end: true}
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return piece{changed: r.changed}
}

// gap returns the line that stands for bytes that were dropped.
func (r *recording) gap(dropped int64, midLine bool) []byte {
	var b []byte
	if midLine {
		b = append(b, '\n')
	}
	return fmt.Appendf(b, "[taskcluster:error] log truncated: %v, %d bytes dropped\n", r.cause, dropped)
}
