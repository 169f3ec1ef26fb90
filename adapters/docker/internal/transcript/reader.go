package transcript

import (
	"errors"
	"io"
)

// Reader reads frames. It is not safe for concurrent use.
type Reader struct {
	f    io.ReaderAt
	at   int64 // of the next frame
	buf  []byte
	left []byte // of buf, from the next frame on
}

// ReadFrom returns a reader of the frames from an offset on that a reader has
// reached before, or 0. lost is how many bytes of them are there no more.
func (f *File) ReadFrom(at int64) (r *Reader, lost int64) {
	from := max(at, f.frames, f.forgotten)
	if f.forgotten > at {
		lost = f.forgotten - max(at, f.frames)
	}
	return &Reader{f: f.f, at: from, buf: make([]byte, 4*mostFrame)}, lost
}

// At returns the offset of the next frame.
func (r *Reader) At() int64 { return r.at }

// Frame is output, or an event.
type Frame struct {
	Output []byte // valid until the next call of Next
	Event  *Event
}

// Next returns the next frame, or io.EOF while it is not there in full.
func (r *Reader) Next() (Frame, error) {
	raw, err := r.take()
	if err != nil {
		return Frame{}, err
	}
	payload := raw[frameHeader:]
	switch raw[0] {
	case outputKind:
		return Frame{Output: payload}, nil
	case eventKind:
		e := new(Event)
		return Frame{Event: e}, parse("an event", payload, e)
	default:
		return Frame{}, ErrDamaged
	}
}

// take returns the next frame as it is.
func (r *Reader) take() ([]byte, error) {
	for filled := false; ; filled = true {
		if len(r.left) >= frameHeader {
			size := order.Uint32(r.left[1:])
			if size > MostOutput {
				return nil, ErrDamaged
			}
			if n := frameHeader + int(size); len(r.left) >= n {
				raw := r.left[:n:n]
				r.left = r.left[n:]
				r.at += int64(n)
				return raw, nil
			}
		}
		if filled {
			// Another frame may come to be in the place of what is not
			// complete.
			r.left = nil
			return nil, io.EOF
		}
		n, err := r.f.ReadAt(r.buf, r.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		r.left = r.buf[:n]
	}
}
