package transcript

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// File is the worker's end.
type File struct {
	Spec Spec

	f         *os.File
	path      string
	frames    int64
	forgotten int64
	beat      uint64
}

// header is what the first process needs, and the next worker.
type header struct {
	spec      Spec
	frames    int64
	forgotten int64
	beat      uint64
}

// Create makes a transcript, in which any user of a container may write. The
// first process may go ahead once Go is called.
func Create(path string, s Spec) (*File, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode what is to be executed: %w", err)
	}
	b := make([]byte, specAt, specAt+len(raw))
	copy(b, magic)
	order.PutUint64(b[beatAt:], 1)
	frames := int64(specAt + len(raw))
	order.PutUint64(b[framesAt:], uint64(frames))
	order.PutUint64(b[forgottenAt:], uint64(frames))
	order.PutUint32(b[specSizeAt:], uint32(len(raw))) //nolint:gosec // a payload is not that long
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(append(b, raw...))
	if s.Bound {
		err = errors.Join(err, lock(f))
	}
	if err = errors.Join(err, f.Chmod(0o666)); err != nil { // who it is in the container is not known here
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &File{Spec: s, f: f, path: path, frames: frames, forgotten: frames, beat: 1}, nil
}

// Open opens a transcript that an earlier worker has made.
func Open(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|noFollow, 0) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, err
	}
	h, err := readHeader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	return &File{Spec: h.spec, f: f, path: path, frames: h.frames, forgotten: h.forgotten, beat: h.beat}, nil
}

func readHeader(f io.ReaderAt) (h header, err error) {
	var b [specAt]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return h, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if string(b[:len(magic)]) != magic {
		return h, errors.New("the transcript is of another version")
	}
	const most = 16 << 20
	size := int64(order.Uint32(b[specSizeAt:]))
	h.frames, h.forgotten = int64(order.Uint64(b[framesAt:])), int64(order.Uint64(b[forgottenAt:])) //nolint:gosec // checked
	h.beat = order.Uint64(b[beatAt:])
	if size > most || h.frames != specAt+size || h.forgotten < h.frames {
		return h, ErrDamaged
	}
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, specAt); err != nil {
		return h, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := parse("what is to be executed", raw, &h.spec); err != nil {
		return h, err
	}
	return h, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Remove removes the file.
func (f *File) Remove() error { return os.Remove(f.path) }

// Path returns where the file is.
func (f *File) Path() string { return f.path }

// Go has the first process go ahead.
func (f *File) Go() error { return f.raise(goAt) }

// Gone reports whether the first process was let go ahead.
func (f *File) Gone() bool { return f.flag(goAt) }

// Refuse says in place of the first process that it cannot be started.
func (f *File) Refuse(cause error) error {
	w := &Writer{f: f.f, at: f.frames}
	first := 0
	w.Event(Event{Executing: &first})
	return w.Done(Done{Last: Executed{Failed: cause.Error(), ExitCode: 126}})
}

// Stop notes that a worker tells the task to stop.
func (f *File) Stop() error { return f.raise(stoppedAt) }

// Stopped reports whether a worker has told the task to stop.
func (f *File) Stopped() bool { return f.flag(stoppedAt) }

// Kill notes that a worker kills the task.
func (f *File) Kill() error { return f.raise(killedAt) }

// Killed reports whether a worker has killed the task, or was about to.
func (f *File) Killed() bool { return f.flag(killedAt) }

func (f *File) raise(at int64) error {
	_, err := f.f.WriteAt([]byte{1}, at)
	return err
}

func (f *File) flag(at int64) bool {
	var b [1]byte
	_, err := f.f.ReadAt(b[:], at)
	return err == nil && b[0] != 0
}

// Beat tells the first process that a worker is there.
func (f *File) Beat() error {
	f.beat++
	return f.put(beatAt, f.beat)
}

func (f *File) put(at int64, v uint64) error {
	var b [8]byte
	order.PutUint64(b[:], v)
	_, err := f.f.WriteAt(b[:], at)
	return err
}

// forgetPiece is how much is forgotten at a time.
const forgetPiece = 16 << 20

// Forget frees what is before an offset from time to time: it is in the log, and
// nobody is going to read it again.
func (f *File) Forget(before int64) error {
	from := f.forgotten
	if before-from < forgetPiece {
		return nil
	}
	if err := f.put(forgottenAt, uint64(before)); err != nil { //nolint:gosec // it is not negative
		return err
	}
	f.forgotten = before
	return punch(f.f, from, before-from)
}

// Done returns how the task ended, or nil if it did not come to its end.
func (f *File) Done() (*Done, error) {
	var size [4]byte
	if _, err := f.f.ReadAt(size[:], doneSizeAt); err != nil {
		return nil, cutShort(err)
	}
	n := order.Uint32(size[:])
	if n == 0 {
		return nil, nil
	}
	if n > mostDone {
		return nil, ErrDamaged
	}
	raw := make([]byte, n)
	if _, err := f.f.ReadAt(raw, doneAt); err != nil {
		return nil, cutShort(err)
	}
	d := new(Done)
	return d, parse("the end", raw, d)
}

// cutShort returns an error of reading what is always there, unless a task has
// truncated the file.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it was truncated", ErrDamaged)
	}
	return err
}
