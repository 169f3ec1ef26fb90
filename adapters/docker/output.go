package docker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/container"
)

// logConfig has the daemon keep the output of a task, exactly and in full, so
// that it is not lost with a connection. It goes with the container.
var logConfig = container.LogConfig{
	Type:   "local",
	Config: map[string]string{"max-size": "1024g", "max-file": "1", "compress": "false"},
}

// The streams of a container, as the daemon numbers them.
const (
	stdout = 1
	stderr = 2
	system = 3 // the daemon's own errors
)

// position is how much of each stream has been read.
type position [stderr + 1]int64

// output copies what a container prints into a log. After a connection was lost
// it goes on where it was.
type output struct {
	to   io.Writer
	raw  bool // one stream, from a terminal
	seen position
	buf  []byte
}

func newOutput(to io.Writer, raw bool) *output {
	return &output{to: to, raw: raw, buf: make([]byte, 32<<10)}
}

// copy copies a stream that begins with the container's first byte, but for what
// was copied from an earlier one, until its end.
func (o *output) copy(from io.Reader) error {
	skip := o.seen
	if o.raw {
		return o.pass(from, stdout, -1, &skip)
	}
	var header [8]byte
	for {
		if _, err := io.ReadFull(from, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(header[4:]))
		switch stream := header[0]; stream {
		case stdout, stderr:
			if err := o.pass(from, int(stream), size, &skip); err != nil {
				return err
			}
		case system:
			message, err := io.ReadAll(io.LimitReader(from, min(size, 4<<10)))
			return fmt.Errorf("the daemon says: %s", append(message, errorSuffix(err)...))
		default:
			return fmt.Errorf("a stream that cannot be: %d", stream)
		}
	}
}

func errorSuffix(err error) string {
	if err == nil {
		return ""
	}
	return " (" + err.Error() + ")"
}

// pass copies size bytes of a stream, or all if size is negative.
func (o *output) pass(from io.Reader, stream int, size int64, skip *position) error {
	for size != 0 {
		part := o.buf
		if size > 0 && size < int64(len(part)) {
			part = part[:size]
		}
		n, err := from.Read(part)
		if size > 0 {
			size -= int64(n)
		}
		old := min(int64(n), skip[stream])
		skip[stream] -= old
		if fresh := part[old:n]; len(fresh) > 0 {
			_, _ = o.to.Write(fresh) // a log takes everything
			o.seen[stream] += int64(len(fresh))
		}
		switch {
		case errors.Is(err, io.EOF) && size < 0:
			return nil
		case errors.Is(err, io.EOF) && size > 0:
			return io.ErrUnexpectedEOF
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
	}
	return nil
}
