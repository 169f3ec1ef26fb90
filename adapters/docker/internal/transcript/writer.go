package transcript

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sync"
)

// Writer is the first process's end. Its methods are safe for concurrent use,
// and never fail: what cannot be stored is counted and dropped, so that a full
// disk does not hold up the task.
type Writer struct {
	f       *os.File
	backlog int64 // most bytes that are not logged yet

	mu        sync.Mutex
	at        int64 // where the next frame goes
	forgotten int64 // before which all was logged when this was looked up
	buf       [mostFrame]byte
	dropped   int64
	cause     error
}

// Attach opens the transcript of the container that the process is in.
func Attach(path string) (*Writer, Spec, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the container's own
	if err != nil {
		return nil, Spec{}, err
	}
	h, err := readHeader(f)
	if err != nil {
		return nil, Spec{}, err
	}
	w := &Writer{f: f, at: h.frames, forgotten: h.frames, backlog: math.MaxInt64}
	if h.spec.Backlog > 0 {
		w.backlog = max(h.spec.Backlog, 2*forgetPiece)
	}
	return w, h.spec, nil
}

// Output appends output. p has at most MostOutput bytes.
func (w *Writer) Output(p []byte) {
	if !w.frame(outputKind, p) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dropped += int64(len(p))
	}
}

// Event appends an event.
func (w *Writer) Event(e Event) {
	if raw, err := json.Marshal(e); err == nil {
		w.frame(eventKind, raw)
	}
}

// frame appends a frame, and reports whether there was room for it. Where there
// was not, the next one takes its place.
func (w *Writer) frame(kind byte, p []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(p) > MostOutput {
		p = p[:MostOutput]
	}
	w.buf[0] = kind
	order.PutUint32(w.buf[1:], uint32(len(p))) //nolint:gosec // it is small
	n := frameHeader + copy(w.buf[frameHeader:], p)
	if _, err := w.f.WriteAt(w.buf[:n], w.at); err != nil {
		w.cause = err
		// A part of it may be there, of which a shorter one leaves the rest to be
		// taken for another frame.
		_ = w.f.Truncate(w.at) // which takes no room
		return false
	}
	w.at += int64(n)
	return true
}

// HasRoom reports whether there is room for more output in the backlog. What is
// appended without room is stored all the same.
func (w *Writer) HasRoom() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at-w.forgotten < w.backlog {
		return true
	}
	var b [8]byte
	if _, err := w.f.ReadAt(b[:], forgottenAt); err == nil {
		w.forgotten = int64(order.Uint64(b[:])) //nolint:gosec // nonsense harms the task alone
	}
	return w.at-w.forgotten < w.backlog
}

// Done ends the transcript.
func (w *Writer) Done(d Done) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	d.Dropped = w.dropped
	if w.cause != nil {
		d.Cause = shorten(w.cause.Error(), 200)
	}
	d.Last.Failed = shorten(d.Last.Failed, 300)
	raw, err := json.Marshal(d)
	if err != nil || len(raw) > mostDone {
		return fmt.Errorf("encode the end in %d bytes: %w", len(raw), err)
	}
	if _, err := w.f.WriteAt(raw, doneAt); err != nil {
		return err
	}
	var size [4]byte
	order.PutUint32(size[:], uint32(len(raw))) //nolint:gosec // it is small
	_, err = w.f.WriteAt(size[:], doneSizeAt)
	return err
}

// shorten keeps text so small that there is room for it, though each byte may
// become six when it is encoded.
func shorten(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// MayGo reports whether the worker has all in place.
func (w *Writer) MayGo() bool {
	var b [1]byte
	_, err := w.f.ReadAt(b[:], goAt)
	return err == nil && b[0] != 0
}

// Beat returns what changes for as long as a worker is there.
func (w *Writer) Beat() uint64 {
	var b [8]byte
	_, _ = w.f.ReadAt(b[:], beatAt) // what cannot be read does not change
	return order.Uint64(b[:])
}
