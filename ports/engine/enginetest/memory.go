package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Memory is an engine in memory. Its payload is {"steps": [...]}, a list of
// Step as JSON: {"do": "print", "text": "x"}. The zero Memory is ready to use.
type Memory struct {
	mu       sync.Mutex
	alive    map[string]int // number of processes by mark
	running  int            // sandboxes that have not ended
	volumes  map[string]*memoryVolume
	attached map[*memoryAttached]struct{} // neither aborted nor closed
	orphans  []*memorySandbox
	last     bool // no process comes after this one
}

var (
	_ engine.Engine         = (*Memory)(nil)
	_ engine.Volumes        = (*Memory)(nil)
	_ engine.ProxyAttacher  = (*memoryBuilder)(nil)
	_ engine.VolumeAttacher = (*memoryBuilder)(nil)
	_ engine.Shells         = (*memorySandbox)(nil)
	_ engine.Reattacher     = (*Memory)(nil)
	_ engine.Reattached     = (*memoryAttached)(nil)
	_ engine.Interrupter    = (*memoryAttached)(nil)
	_ Harness               = (*Memory)(nil)
	_ Reopener              = (*Memory)(nil)
)

// Engine implements Harness.
func (m *Memory) Engine(testing.TB) engine.Engine { return m }

// Reopen implements Reopener.
func (m *Memory) Reopen(testing.TB) engine.Engine {
	m.last = false
	return m
}

// Last implements Reopener.
func (m *Memory) Last(testing.TB) engine.Engine {
	m.last = true
	return m
}

// Abilities implements Harness.
func (m *Memory) Abilities() Abilities {
	return Abilities{Proxies: true, Volumes: true, Shells: true, Reattach: true, Interrupts: true, Images: true}
}

// memoryPayload is the payload of a Memory.
type memoryPayload struct {
	Steps []Step `json:"steps"`
}

// Payload implements Harness.
func (m *Memory) Payload(tb testing.TB, steps ...Step) []byte {
	tb.Helper()
	b, err := json.Marshal(memoryPayload{steps})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Alive implements Harness.
func (m *Memory) Alive(_ testing.TB, mark string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alive[mark] > 0
}

// Name implements engine.Engine.
func (m *Memory) Name() string { return "memory" }

// PayloadSchema implements engine.Engine.
func (m *Memory) PayloadSchema() []byte {
	return []byte(`{"type": "object", "required": ["steps"], "properties": {"steps": {"type": "array", "items": {"type": "object"}}}}`)
}

// NewBuilder implements engine.Engine.
func (m *Memory) NewBuilder(_ context.Context, o engine.Options) (engine.Builder, error) {
	var p memoryPayload
	if err := json.Unmarshal(o.Payload, &p); err != nil {
		return nil, fault.Malformedf("payload: %v", err)
	}
	return &memoryBuilder{m: m, o: o, steps: p.Steps, env: map[string]string{}}, nil
}

// NewVolume implements engine.Volumes.
func (m *Memory) NewVolume(context.Context) (engine.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.volumes == nil {
		m.volumes = map[string]*memoryVolume{}
	}
	v := &memoryVolume{m: m, id: rand.Text(), files: fstest.MapFS{}}
	m.volumes[v.id] = v
	return v, nil
}

// OpenVolume implements engine.Volumes.
func (m *Memory) OpenVolume(_ context.Context, id string) (engine.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.volumes[id]
	if !ok {
		return nil, &fs.PathError{Op: "open volume", Path: id, Err: fs.ErrNotExist}
	}
	return v, nil
}

// KeepVolumes implements engine.Volumes.
func (m *Memory) KeepVolumes(_ context.Context, ids []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.volumes, func(id string, _ *memoryVolume) bool { return !slices.Contains(ids, id) })
	return nil
}

// Close implements engine.Engine. It fails if a sandbox is running.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running > 0 {
		return errors.New("enginetest: closed while a sandbox is running")
	}
	return nil
}

// count adds n to the number of processes with a mark.
func (m *Memory) count(mark string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.alive == nil {
		m.alive = map[string]int{}
	}
	m.alive[mark] += n
}

// ran adds n to the number of running sandboxes.
func (m *Memory) ran(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running += n
}

// memoryVolume is a volume: files by their names in it.
type memoryVolume struct {
	m  *Memory
	id string

	mu    sync.Mutex
	files fstest.MapFS
}

// ID implements engine.Volume.
func (v *memoryVolume) ID() string { return v.id }

// Close implements engine.Volume.
func (v *memoryVolume) Close() error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	delete(v.m.volumes, v.id)
	return nil
}

type memoryMount struct {
	volume   *memoryVolume
	readOnly bool
}

type memoryBuilder struct {
	m       *Memory
	o       engine.Options
	steps   []Step
	env     map[string]string
	proxies map[string]http.Handler // by URL
	mounts  map[string]memoryMount  // by path
	closed  bool
}

// SetEnv implements engine.Builder.
func (b *memoryBuilder) SetEnv(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
		return fault.Malformedf("environment variable %q cannot be set", name)
	}
	b.env[name] = value
	return nil
}

// AttachProxy implements engine.ProxyAttacher.
func (b *memoryBuilder) AttachProxy(hostname string, h http.Handler) (string, error) {
	if b.proxies == nil {
		b.proxies = map[string]http.Handler{}
	}
	url := "http://" + hostname + ".memory"
	b.proxies[url] = h
	return url, nil
}

// AttachVolume implements engine.VolumeAttacher.
func (b *memoryBuilder) AttachVolume(name string, v engine.Volume, readOnly bool) error {
	volume, ok := v.(*memoryVolume)
	if !ok {
		return errors.New("enginetest: volume of another engine")
	}
	at := resolve(name)
	if at == memoryDir || !strings.Contains(at, "/") {
		return fault.Malformedf("there can be no volume at %q", name)
	}
	if b.mounts == nil {
		b.mounts = map[string]memoryMount{}
	}
	b.mounts[at] = memoryMount{volume, readOnly}
	return nil
}

// Start implements engine.Builder.
func (b *memoryBuilder) Start(ctx context.Context) (engine.Sandbox, error) {
	if b.closed {
		return nil, errors.New("enginetest: builder is closed")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.closed = true
	b.m.ran(1)
	b.env[engine.InterruptionVariable] = "/interruption"
	s := &memorySandbox{
		m: b.m, o: b.o, steps: b.steps, env: maps.Clone(b.env), proxies: b.proxies, mounts: b.mounts,
		files:   fstest.MapFS{memoryDir: {Mode: memoryDirMode}},
		started: time.Now(),
		ended:   make(chan struct{}),
	}
	s.told.changed = make(chan struct{})
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	b.m.mu.Lock()
	a := b.m.attach(s, b.o.Log, 0)
	b.m.mu.Unlock()
	go s.run()
	return a, nil
}

// Close implements engine.Builder.
func (b *memoryBuilder) Close() error {
	b.closed = true
	return nil
}

// resolve returns the name in the file system of a path that a task uses.
func resolve(name string) string {
	if !path.IsAbs(name) {
		name = path.Join("/", memoryDir, name)
	}
	return strings.TrimPrefix(path.Clean(name), "/")
}
