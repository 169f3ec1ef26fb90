package logfile

import "bytes"

// tail keeps the last bytes written: limit of them at least, and fewer than
// twice as many.
type tail struct {
	limit int
	bytes []byte
}

func (t *tail) write(p []byte) {
	if len(p) > t.limit {
		t.bytes, p = t.bytes[:0], p[len(p)-t.limit:]
	}
	if len(t.bytes)+len(p) >= 2*t.limit {
		kept := copy(t.bytes, t.bytes[len(t.bytes)+len(p)-t.limit:])
		t.bytes = t.bytes[:kept]
	}
	t.bytes = append(t.bytes, p...)
}

// firstLine returns the offset of the first line that begins in the tail, or
// zero if none does soon.
func (t *tail) firstLine() int {
	const longest = 4 << 10
	return bytes.IndexByte(t.bytes[:min(len(t.bytes), longest)], '\n') + 1
}
