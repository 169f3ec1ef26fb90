package enginetest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// memoryAttached is a sandbox as the process that is attached to it has it.
type memoryAttached struct {
	*memorySandbox
	detached chan struct{}
	result   memoryResultSet

	mu      sync.Mutex
	aborted bool
	yielded bool
}

// attach attaches to a sandbox. The caller holds m.mu.
func (m *Memory) attach(s *memorySandbox, log *tasklog.Log, from tasklog.Position) *memoryAttached {
	a := &memoryAttached{memorySandbox: s, detached: make(chan struct{})}
	a.result.a = a
	s.out.attach(log, from)
	if m.attached == nil {
		m.attached = map[*memoryAttached]struct{}{}
	}
	m.attached[a] = struct{}{}
	return a
}

// release ends an attachment, and reports whether it had not been detached.
func (m *Memory) release(a *memoryAttached) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.attached[a]
	delete(m.attached, a)
	return ok
}

// Orphans implements engine.Reattacher.
func (m *Memory) Orphans(context.Context) ([]task.RunID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var runs []task.RunID
	for _, s := range m.orphans {
		runs = append(runs, s.o.Run)
	}
	return runs, nil
}

// take removes the orphan of a run. The caller holds m.mu.
func (m *Memory) take(run task.RunID) *memorySandbox {
	i := slices.IndexFunc(m.orphans, func(s *memorySandbox) bool { return s.o.Run == run })
	if i < 0 {
		return nil
	}
	s := m.orphans[i]
	m.orphans = slices.Delete(m.orphans, i, i+1)
	return s
}

// Reattach implements engine.Reattacher.
func (m *Memory) Reattach(_ context.Context, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.take(o.Run)
	if s == nil {
		return nil, &fs.PathError{Op: "reattach", Path: o.Run.String(), Err: fs.ErrNotExist}
	}
	return m.attach(s, o.Log, from), nil
}

// Discard implements engine.Reattacher.
func (m *Memory) Discard(_ context.Context, run task.RunID) error {
	m.mu.Lock()
	s := m.take(run)
	m.mu.Unlock()
	if s != nil {
		s.end(engine.ErrAborted)
		<-s.ended
	}
	return nil
}

// Detach implements engine.Reattacher. The next process may use m.
func (m *Memory) Detach() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for a := range m.attached {
		a.out.detach()
		close(a.detached)
		m.orphans = append(m.orphans, a.memorySandbox)
		if m.last {
			a.end(errKilled)
		}
	}
	clear(m.attached)
	return nil
}

// Started implements engine.Reattached.
func (a *memoryAttached) Started() time.Time { return a.started }

// Wait implements engine.Sandbox.
func (a *memoryAttached) Wait(ctx context.Context) (engine.ResultSet, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-a.detached:
		return nil, engine.ErrDetached
	case <-a.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.aborted {
		return nil, engine.ErrAborted
	}
	a.yielded = true
	return &a.result, nil
}

// Kill implements engine.Sandbox.
func (a *memoryAttached) Kill(context.Context) error {
	select {
	case <-a.detached:
	default:
		a.end(errKilled)
	}
	return nil
}

// Abort implements engine.Sandbox.
func (a *memoryAttached) Abort(ctx context.Context) error {
	a.mu.Lock()
	if a.yielded || !a.aborted && !a.m.release(a) {
		a.mu.Unlock()
		return nil
	}
	a.aborted = true
	a.mu.Unlock()
	a.end(engine.ErrAborted)
	select {
	case <-a.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type memoryResultSet struct{ a *memoryAttached }

// Result implements engine.ResultSet.
func (r *memoryResultSet) Result() engine.Result { return r.a.memorySandbox.result }

// FS implements engine.ResultSet.
func (r *memoryResultSet) FS() fs.FS { return r.a.files }

// Dir implements engine.ResultSet.
func (r *memoryResultSet) Dir() string { return memoryDir }

// Image implements engine.Imaged.
func (r *memoryResultSet) Image() engine.Image {
	return engine.Image{Hash: "sha256:" + strings.Repeat("0123456789abcdef", 4)}
}

// Close implements engine.ResultSet.
func (r *memoryResultSet) Close() error {
	r.a.m.release(r.a)
	return nil
}

// memoryOutput is what a task has yielded, and the log that it goes to while a
// process is attached. Positions count bytes of output, and each piece of lines
// about a command as one.
type memoryOutput struct {
	mu     sync.Mutex
	pieces []memoryPiece
	log    *tasklog.Log // nil while nobody is attached
	at     tasklog.Position
	from   tasklog.Position // up to here the log has it
}

// memoryPiece is output, or otherwise lines about a command.
type memoryPiece struct {
	text  []byte
	lines func(*tasklog.Log)
}

func (o *memoryOutput) print(text string) {
	const largest = 64 << 10
	for piece := range slices.Chunk([]byte(text), largest) {
		o.add(memoryPiece{text: piece})
	}
}

func (o *memoryOutput) reach(lines func(*tasklog.Log)) { o.add(memoryPiece{lines: lines}) }

func (o *memoryOutput) add(p memoryPiece) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pieces = append(o.pieces, p)
	if o.log != nil {
		o.write(p)
	}
}

// write writes the next piece, or what the log lacks of it.
func (o *memoryOutput) write(p memoryPiece) {
	start := o.at
	if p.lines != nil {
		o.at++
	}
	o.at += tasklog.Position(len(p.text))
	switch {
	case o.at <= o.from:
	case p.lines != nil:
		o.log.Reach(o.at, p.lines)
	default:
		o.log.Output(p.text[max(0, o.from-start):], o.at)
	}
}

func (o *memoryOutput) attach(log *tasklog.Log, from tasklog.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log, o.at, o.from = log, 0, from
	for _, p := range o.pieces {
		o.write(p)
	}
}

func (o *memoryOutput) detach() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = nil
}

var errKilled = errors.New("enginetest: killed")
