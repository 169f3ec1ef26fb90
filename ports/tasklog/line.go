package tasklog

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Log writes a task's output and the worker's own lines to one recording. The
// lines have the form that Treeherder parses. Its methods are safe for
// concurrent use and never fail.
type Log struct {
	mu      sync.Mutex
	w       io.Writer
	midLine bool
}

// New returns a log that writes to w, which must behave as a [Recording] does.
// If it is one that was resumed, the log goes on where that ends.
func New(w io.Writer) *Log {
	l := &Log{w: w}
	if r, ok := w.(Recording); ok {
		l.midLine = r.MidLine()
	}
	return l
}

// Write writes output of the task, unchanged.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p) > 0 {
		l.midLine = p[len(p)-1] != '\n'
	}
	return l.w.Write(p)
}

// Output writes output of the task, unchanged, which brings the engine to a
// position.
func (l *Log) Output(p []byte, at Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p) > 0 {
		l.midLine = p[len(p)-1] != '\n'
	}
	l.append(p, at)
}

// Reach writes what f writes to the log that it gets, which brings the engine
// to a position: a log that is resumed has all of it, or nothing.
func (l *Log) Reach(at Position, f func(*Log)) {
	var b bytes.Buffer
	l.mu.Lock()
	defer l.mu.Unlock()
	piece := &Log{w: &b, midLine: l.midLine}
	f(piece)
	l.midLine = piece.midLine
	l.append(b.Bytes(), at)
}

func (l *Log) append(p []byte, at Position) {
	if r, ok := l.w.(Recording); ok {
		r.Append(p, at)
		return
	}
	_, _ = l.w.Write(p) // as a recording, it takes everything
}

// Infof writes lines of the form "[taskcluster 2017-01-25T23:31:13.787Z] message".
func (l *Log) Infof(format string, args ...any) {
	l.lines("[taskcluster "+stamp()+"] ", format, args)
}

// Warnf writes lines of the form "[taskcluster:warn 2017-01-25T23:31:13.787Z] message".
func (l *Log) Warnf(format string, args ...any) {
	l.lines("[taskcluster:warn "+stamp()+"] ", format, args)
}

// Errorf writes lines of the form "[taskcluster:error] message", which carry no
// time because parsers group failures by the whole line.
func (l *Log) Errorf(format string, args ...any) { l.lines("[taskcluster:error] ", format, args) }

func stamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// lines writes the message with the prefix before each of its lines. It starts
// on a new line even where the task's output did not end its last one.
func (l *Log) lines(prefix, format string, args []any) {
	message := fmt.Sprintf(format, args...)
	var b strings.Builder
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.midLine {
		b.WriteByte('\n')
	}
	l.midLine = false
	for line := range strings.SplitSeq(strings.TrimRight(message, "\n"), "\n") {
		b.WriteString(prefix + line + "\n")
	}
	_, _ = io.WriteString(l.w, b.String()) // a recording takes everything
}
