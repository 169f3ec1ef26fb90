package command

import (
	"io"
	"log/slog"

	"github.com/taskcluster/taskcluster-worker/pkg/systemd"
)

// NewLog returns a program's own log. format is text, json or, for the journal of
// systemd, journal; level is debug, info, warn or error.
func NewLog(format, level string, w io.Writer) *slog.Logger {
	var least slog.Level
	if least.UnmarshalText([]byte(level)) != nil {
		least = slog.LevelInfo // the configuration has been checked
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options))
	case "journal":
		return slog.New(systemd.NewLogHandler(w, options))
	default:
		return slog.New(slog.NewJSONHandler(w, options))
	}
}
