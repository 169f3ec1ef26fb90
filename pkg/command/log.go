package command

import (
	"io"
	"log/slog"
)

// NewLog returns a program's own log. format is text or json; level is debug,
// info, warn or error.
func NewLog(format, level string, w io.Writer) *slog.Logger {
	var least slog.Level
	if least.UnmarshalText([]byte(level)) != nil {
		least = slog.LevelInfo // the configuration has been checked
	}
	options := &slog.HandlerOptions{Level: least}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
