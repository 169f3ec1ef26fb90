package systemd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
)

// JournalListens reports whether the standard error of the process goes to
// systemd's journal.
func JournalListens() bool { return os.Getenv("JOURNAL_STREAM") != "" }

// NewLogHandler returns a handler for a stream that goes to systemd's journal:
// each record is a line of JSON after its priority, as in sd-daemon(3).
func NewLogHandler(w io.Writer, options *slog.HandlerOptions) slog.Handler {
	stream := &stream{w: w}
	return &handler{slog.NewJSONHandler(stream, options), stream}
}

// stream writes one record at a time, after its priority.
type stream struct {
	mu       sync.Mutex
	w        io.Writer
	priority string
	line     bytes.Buffer
}

// Write implements io.Writer, for a record. The caller holds s.mu.
func (s *stream) Write(record []byte) (int, error) {
	s.line.Reset()
	s.line.WriteString(s.priority)
	s.line.Write(record)
	if _, err := s.w.Write(s.line.Bytes()); err != nil {
		return 0, err
	}
	return len(record), nil
}

type handler struct {
	slog.Handler
	stream *stream
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	h.stream.priority = priority(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.stream}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.stream}
}

// priority returns a level as syslog numbers it.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	default:
		return "<7>"
	}
}
