package tasklogtest

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Memory is a recorder in memory. The zero Memory is ready to use.
type Memory struct {
	mu      sync.Mutex
	records map[task.RunID]*recording
}

// Record implements tasklog.Recorder.
func (m *Memory) Record(id task.RunID) (tasklog.Recording, error) {
	r := &recording{changed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[task.RunID]*recording{}
	}
	m.records[id] = r
	return r, nil
}

// Resume implements tasklog.Recorder.
func (m *Memory) Resume(id task.RunID) (tasklog.Recording, tasklog.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.records[id]
	if before == nil {
		return nil, 0, notExist(id)
	}
	before.mu.Lock()
	defer before.mu.Unlock()
	if before.closed {
		return nil, 0, notExist(id)
	}
	r := &recording{text: slices.Clone(before.text), at: before.at, changed: make(chan struct{})}
	if before.draft {
		r.text, r.at = r.text[:before.firm], before.firmAt
	}
	m.records[id] = r
	return r, r.at, nil
}

func notExist(id task.RunID) error {
	return &fs.PathError{Op: "resume log", Path: id.String(), Err: fs.ErrNotExist}
}

// Keep implements tasklog.Recorder.
func (m *Memory) Keep(ids ...task.RunID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.records, func(id task.RunID, _ *recording) bool { return !slices.Contains(ids, id) })
	return nil
}

// Text returns what was written to the latest recording of id, closed or not,
// or "" if there was none.
func (m *Memory) Text(id task.RunID) string {
	m.mu.Lock()
	r := m.records[id]
	m.mu.Unlock()
	if r == nil {
		return ""
	}
	text, _, _ := r.from(0)
	return string(text)
}

type recording struct {
	mu      sync.Mutex
	text    []byte
	at      tasklog.Position
	draft   bool
	firm    int // how much of text is no draft, if there is one
	firmAt  tasklog.Position
	sealed  bool
	closed  bool
	changed chan struct{} // closed and replaced by every change
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sealed {
		r.text = append(r.text, p...)
		r.announce()
	}
	return len(p), nil
}

func (r *recording) Append(p []byte, at tasklog.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sealed {
		r.text, r.at = append(r.text, p...), at
		r.announce()
	}
}

func (r *recording) Draft(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on && !r.draft {
		r.firm, r.firmAt = len(r.text), r.at
	}
	r.draft = on
}

func (r *recording) MidLine() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.text) > 0 && r.text[len(r.text)-1] != '\n'
}

func (r *recording) announce() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recording) Open() (io.ReadCloser, error) {
	text, _, _ := r.from(0)
	return io.NopCloser(bytes.NewReader(text)), nil
}

func (r *recording) Follow(ctx context.Context) (io.ReadCloser, error) {
	return &follower{ctx: ctx, r: r}, nil
}

func (r *recording) Seal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sealed {
		r.sealed = true
		r.announce()
	}
	return nil
}

func (r *recording) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.Seal()
}

// from returns the text from an offset on, which is never written to again,
// whether that is all there will be, and a channel that tells of changes.
func (r *recording) from(offset int) (text []byte, sealed bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text[offset:len(r.text):len(r.text)], r.sealed, r.changed
}

type follower struct {
	ctx    context.Context // as the port binds a reader to one
	r      *recording
	offset int
}

func (f *follower) Read(p []byte) (int, error) {
	for {
		if err := f.ctx.Err(); err != nil {
			return 0, err
		}
		text, sealed, changed := f.r.from(f.offset)
		switch {
		case len(text) > 0:
			n := copy(p, text)
			f.offset += n
			return n, nil
		case sealed:
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
		}
	}
}

func (f *follower) Close() error { return nil }
