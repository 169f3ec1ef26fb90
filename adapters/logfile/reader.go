package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// reader reads a recording from its first byte to its seal. It holds up nobody:
// it has no buffer that a writer would have to fill.
type reader struct {
	ctx    context.Context // of the one who follows, to whom Read cannot be told
	cancel context.CancelFunc
	from   *recording
	pos    int64
	rest   []byte // what was found in memory and not handed out yet

	midLine bool // what was handed out last did not end a line
}

// Read implements io.Reader. At the end of what there is it waits for more.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.read(p)
	if n > 0 {
		r.midLine = p[n-1] != '\n'
	}
	return n, err
}

func (r *reader) read(p []byte) (int, error) {
	for len(p) > 0 {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if len(r.rest) > 0 {
			n := copy(p, r.rest)
			r.rest = r.rest[n:]
			return n, nil
		}
		next := r.from.at(r.pos, r.midLine)
		switch {
		case next.inFile > 0:
			return r.readFile(p[:min(int64(len(p)), next.inFile)])
		case next.text != nil:
			r.rest, r.pos = next.text, next.next
		case next.end:
			return 0, io.EOF
		default:
			select {
			case <-next.changed:
			case <-r.ctx.Done():
			}
		}
	}
	return 0, nil
}

func (r *reader) readFile(p []byte) (int, error) {
	n, err := r.from.file.ReadAt(p, r.pos)
	r.pos += int64(n)
	if n > 0 {
		return n, nil // an error comes again
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file had more
	}
	return 0, fmt.Errorf("read task log: %w", err)
}

// Close implements io.Closer. It ends a Read that waits.
func (r *reader) Close() error {
	r.cancel()
	return nil
}
