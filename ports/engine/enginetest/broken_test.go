package enginetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// patience is how long a check may wait for an engine with a defect.
const patience = 200 * time.Millisecond

var errBroken = errors.New("broken")

// quiet is a test that the clean-up of a check on a broken engine does not fail.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}

// broken is an engine with defects.
type broken struct {
	*Memory
	declared Abilities
	schema   string
	step     func(Step) Step
	log      func(*tasklog.Log) *tasklog.Log

	built      func(engine.Builder)
	setEnv     func(b engine.Builder, name, value string) error
	url        string
	handler    http.Handler
	attach     func(engine.VolumeAttacher, string, engine.Volume, bool) error
	closeError error
	closeKills bool

	wait          func(engine.ResultSet, error) (engine.ResultSet, error)
	fresh         bool
	abortOnCancel bool
	cancelError   error
	undead        bool
	killError     error
	lateKill      bool
	abort         func(engine.Sandbox, context.Context) error
	abortRemoves  bool
	noShells      bool
	shellCode     int
	shellLives    bool
	interrupt     func(context.Context, *brokenSandbox, engine.Interrupter, engine.Interruption) error
	early         bool // tasks are told before there is anything to tell

	reattach func(*Memory, engine.Options, tasklog.Position) (engine.Reattached, error)
	orphans  func([]task.RunID) []task.RunID
	discard  error
	detach   func(*Memory) error

	result func(engine.Result) engine.Result
	files  func(fs.FS) fs.FS
	dir    string
	image  func(engine.Image) engine.Image
}

func (b *broken) Engine(testing.TB) engine.Engine { return b }
func (b *broken) Abilities() Abilities            { return b.declared }

func (b *broken) Payload(tb testing.TB, steps ...Step) []byte {
	tb.Helper()
	if b.step != nil {
		for i := range steps {
			steps[i] = b.step(steps[i])
		}
	}
	return b.Memory.Payload(tb, steps...)
}

func (b *broken) Alive(tb testing.TB, mark string) bool {
	tb.Helper()
	return b.undead || b.Memory.Alive(tb, mark)
}

func (b *broken) PayloadSchema() []byte {
	if b.schema != "" {
		return []byte(b.schema)
	}
	return b.Memory.PayloadSchema()
}

func (b *broken) NewBuilder(ctx context.Context, o engine.Options) (engine.Builder, error) {
	if b.log != nil {
		o.Log = b.log(o.Log)
	}
	builder, err := b.Memory.NewBuilder(ctx, o)
	if err != nil {
		return nil, err
	}
	if b.built != nil {
		b.built(builder)
	}
	return &brokenBuilder{memoryBuilder: builder.(*memoryBuilder), b: b}, nil
}

type brokenBuilder struct {
	*memoryBuilder
	b       *broken
	sandbox engine.Sandbox
}

func (b *brokenBuilder) SetEnv(name, value string) error {
	if b.b.setEnv != nil {
		return b.b.setEnv(b.memoryBuilder, name, value)
	}
	return b.memoryBuilder.SetEnv(name, value)
}

// setFirstOnly keeps the value that was set first.
func setFirstOnly(b engine.Builder, name, value string) error {
	if _, ok := b.(*memoryBuilder).env[name]; ok {
		return nil
	}
	return b.SetEnv(name, value)
}

func (b *brokenBuilder) AttachProxy(hostname string, h http.Handler) (string, error) {
	if b.b.handler != nil {
		h = b.b.handler
	}
	url, err := b.memoryBuilder.AttachProxy(hostname, h)
	if b.b.url != "" {
		url = b.b.url
	}
	return url, err
}

func (b *brokenBuilder) AttachVolume(path string, v engine.Volume, readOnly bool) error {
	if b.b.attach != nil {
		return b.b.attach(b.memoryBuilder, path, v, readOnly)
	}
	return b.memoryBuilder.AttachVolume(path, v, readOnly)
}

func (b *brokenBuilder) Start(ctx context.Context) (engine.Sandbox, error) {
	s, err := b.memoryBuilder.Start(ctx)
	if err != nil {
		return nil, err
	}
	b.sandbox = s
	if b.b.early {
		_ = s.(engine.Interrupter).Interrupt(ctx, engine.Interruption{Cause: "early"})
	}
	wrapped := &brokenSandbox{Sandbox: s, b: b.b}
	if b.b.noShells {
		return wrapped, nil
	}
	return &brokenShells{wrapped}, nil
}

func (b *brokenBuilder) Close() error {
	if b.b.closeKills && b.sandbox != nil {
		_ = b.sandbox.Abort(context.Background())
	}
	return errors.Join(b.b.closeError, b.memoryBuilder.Close())
}

type brokenSandbox struct {
	engine.Sandbox
	b    *broken
	last *brokenResultSet
	late bool
}

func (s *brokenSandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	if ctx.Err() != nil && s.b.abortOnCancel {
		_ = s.Sandbox.Abort(context.WithoutCancel(ctx))
	}
	if ctx.Err() != nil && s.b.cancelError != nil {
		return nil, s.b.cancelError
	}
	r, err := s.Sandbox.Wait(ctx)
	if s.b.wait != nil {
		return s.b.wait(r, err)
	}
	if err != nil {
		return nil, err
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.last == nil || s.b.fresh {
		s.last = &brokenResultSet{ResultSet: r, s: s}
	}
	return s.last, nil
}

func (s *brokenSandbox) Kill(ctx context.Context) error {
	s.late = s.last != nil
	return errors.Join(s.b.killError, s.Sandbox.Kill(ctx))
}

func (s *brokenSandbox) Abort(ctx context.Context) error {
	if s.b.abort != nil {
		return errors.Join(s.b.abort(s.Sandbox, ctx), s.Sandbox.Kill(ctx))
	}
	if s.b.abortRemoves {
		s.last.removed = true
	}
	return s.Sandbox.Abort(ctx)
}

type brokenShells struct{ *brokenSandbox }

func (s *brokenShells) OpenShell(ctx context.Context, o engine.ShellOptions) (engine.Shell, error) {
	shell, err := s.Sandbox.(engine.Shells).OpenShell(ctx, o)
	return &brokenShell{shell, s.b}, err
}

type brokenShell struct {
	engine.Shell
	b *broken
}

func (s *brokenShell) Wait(ctx context.Context) (int, error) {
	code, err := s.Shell.Wait(ctx)
	if s.b.shellLives && code == -1 {
		<-ctx.Done()
		return -1, ctx.Err()
	}
	return max(code, s.b.shellCode) - s.b.shellCode, err
}

type brokenResultSet struct {
	engine.ResultSet
	s       *brokenSandbox
	removed bool
}

func (r *brokenResultSet) Result() engine.Result {
	result := r.ResultSet.Result()
	if r.s.b.result != nil {
		return r.s.b.result(result)
	}
	if r.s.b.lateKill && r.s.late {
		result.Killed = true
	}
	return result
}

func (r *brokenResultSet) FS() fs.FS {
	if r.removed {
		return fstest.MapFS{}
	}
	if r.s.b.files != nil {
		return r.s.b.files(r.ResultSet.FS())
	}
	return r.ResultSet.FS()
}

func (r *brokenResultSet) Image() engine.Image {
	i := r.ResultSet.(engine.Imaged).Image()
	if r.s.b.image != nil {
		return r.s.b.image(i)
	}
	return i
}

func (r *brokenResultSet) Dir() string {
	if r.s.b.dir != "" {
		return r.s.b.dir
	}
	return r.ResultSet.Dir()
}

func (r *brokenResultSet) Close() error { return errors.Join(r.s.b.closeError, r.ResultSet.Close()) }

// dropping is a log that lacks what contains a text.
type dropping struct {
	w    io.Writer
	text string
}

func (d *dropping) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(d.text)) {
		return len(p), nil
	}
	return d.w.Write(p)
}

// opaque is a file system whose errors say nothing.
type opaque struct{ fs fs.FS }

func (o opaque) Open(name string) (fs.File, error) {
	f, err := o.fs.Open(name)
	if err != nil {
		return nil, errBroken
	}
	return f, nil
}

// lenient is a file system that takes names which are not valid.
type lenient struct{ fs fs.FS }

func (l lenient) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		name = "."
	}
	return l.fs.Open(name)
}

// escaping is a file system that follows links to where the worker sees them lead.
type escaping struct{ fs fs.FS }

func (e escaping) Open(name string) (fs.File, error) {
	if target, err := fs.ReadLink(e.fs, name); err == nil {
		return os.Open(target)
	}
	return e.fs.Open(name)
}

func TestMemoryRefusesPayload(t *testing.T) {
	for _, payload := range []string{"", "{", `{"steps": 1}`} {
		if _, err := new(Memory).NewBuilder(t.Context(), engine.Options{Payload: []byte(payload)}); err == nil {
			t.Errorf("payload %q was accepted", payload)
		}
	}
}
