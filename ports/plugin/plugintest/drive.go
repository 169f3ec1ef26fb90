package plugintest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// Setup describes a run. Its zero value is one whose task succeeds, leaves no
// files, and asks for nothing.
type Setup struct {
	Payload    string          // the plugin's part, in JSON; "{}" if empty
	Dialect    payload.Dialect // payload.GenericWorker if empty
	Definition task.Definition // the one of Definition if it has no deadline
	Result     engine.Result   // of the sandbox; success if zero
	Files      fs.FS           // what the sandbox leaves; an empty Dir if nil
	Dir        string          // the task's working directory in Files; Dir if empty
	Denied     []task.Scopes   // sets of scopes that the task does not have

	// Held is what an earlier process has held for the run: caches by volume.
	Held map[string]string
}

// Dir is where tasks work unless a Setup says otherwise.
const Dir = "home/task"

// Run is which run a [Drive] is of.
var Run = task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 0}

// Definition returns that of a task created at the given time, with an hour to
// its deadline and a day to its expiry.
func Definition(created time.Time) task.Definition {
	created = created.UTC().Truncate(time.Millisecond)
	return task.Definition{
		TaskQueueID: "proj-test/linux",
		SchedulerID: "test-scheduler",
		TaskGroupID: "dSlITZ4yQgmvxxAi4A8fHQ",
		Created:     created,
		Deadline:    created.Add(time.Hour),
		Expires:     created.Add(24 * time.Hour),
	}
}

// Drive leads the part that one plugin has in one run through its stages, in
// the place of a worker. Its fields show what the plugin has done so far.
type Drive struct {
	TaskPlugin plugin.TaskPlugin // nil if the run has no need of the plugin
	Artifacts  *Artifacts
	Builder    *Builder
	Sandbox    *Sandbox
	ResultSet  *ResultSet
	Held       map[string]string // caches by volume

	recorder  tasklogtest.Memory
	recording tasklog.Recording
}

// Start makes the plugin's part in a run.
func Start(p plugin.Plugin, s Setup) (*Drive, error) {
	if s.Payload == "" {
		s.Payload = "{}"
	}
	if s.Definition.Deadline.IsZero() {
		s.Definition = Definition(time.Now())
	}
	if s.Result == (engine.Result{}) {
		s.Result.Success = true
	}
	if s.Dir == "" {
		s.Dir = Dir
	}
	if s.Files == nil {
		s.Files = fstest.MapFS{s.Dir: &fstest.MapFile{Mode: fs.ModeDir | 0o755}}
	}
	d := &Drive{
		Artifacts: new(Artifacts),
		Builder:   &Builder{Env: map[string]string{}, Volumes: map[string]engine.Volume{}},
		Sandbox:   &Sandbox{killed: make(chan struct{})},
		ResultSet: &ResultSet{Outcome: s.Result, Files: s.Files, WorkDir: s.Dir},
		Held:      map[string]string{},
	}
	recording, err := d.recorder.Record(Run)
	if err != nil {
		return nil, err
	}
	d.recording = recording
	d.TaskPlugin, err = p.NewTaskPlugin(plugin.Task{
		Run:         Run,
		Definition:  s.Definition,
		Payload:     []byte(s.Payload),
		Dialect:     cmp.Or(s.Dialect, payload.GenericWorker),
		Credentials: func() task.Credentials { return task.Credentials{ClientID: "task-client/" + Run.String()} },
		Artifacts:   d.Artifacts,
		Log:         tasklog.New(recording),
		Authorize:   authorize(s.Denied),
		Hold:        func(volumeID, cache string) { d.Held[volumeID] = cache },
		Held:        s.Held,
	})
	return d, err
}

func authorize(denied []task.Scopes) func(context.Context, ...task.Scopes) error {
	lacks := map[string]bool{}
	for _, set := range denied {
		lacks[strings.Join(set.Normal(), " ")] = true
	}
	return func(_ context.Context, anyOf ...task.Scopes) error {
		for _, set := range anyOf {
			if !lacks[strings.Join(set.Normal(), " ")] {
				return nil
			}
		}
		return fmt.Errorf("the task has none of the scopes %v", anyOf)
	}
}

// Log returns what is in the task log.
func (d *Drive) Log() string { return d.recorder.Text(Run) }

// Env returns the environment that the plugin has set.
func (d *Drive) Env() map[string]string { return maps.Clone(d.Builder.Env) }

// ArtifactNames asks for the names that the plugin reserves.
func (d *Drive) ArtifactNames() []string {
	if p, ok := d.TaskPlugin.(plugin.ArtifactNamer); ok {
		return p.ArtifactNames()
	}
	return nil
}

// Prepare calls the hook of that name, if there is one. So do the methods below.
func (d *Drive) Prepare(ctx context.Context) error {
	if p, ok := d.TaskPlugin.(plugin.Preparer); ok {
		return p.Prepare(ctx)
	}
	return nil
}

// BuildSandbox passes d.Builder.
func (d *Drive) BuildSandbox(ctx context.Context) error {
	if p, ok := d.TaskPlugin.(plugin.SandboxBuilder); ok {
		return p.BuildSandbox(ctx, d.Builder)
	}
	return nil
}

// Started passes d.Sandbox.
func (d *Drive) Started(ctx context.Context) error {
	if p, ok := d.TaskPlugin.(plugin.Starter); ok {
		return p.Started(ctx, d.Sandbox)
	}
	return nil
}

// Resumed passes d.Sandbox.
func (d *Drive) Resumed(ctx context.Context, started time.Time) error {
	if p, ok := d.TaskPlugin.(plugin.Resumer); ok {
		return p.Resumed(ctx, d.Sandbox, started)
	}
	return nil
}

// Stopped passes d.ResultSet.
func (d *Drive) Stopped(ctx context.Context) error {
	if p, ok := d.TaskPlugin.(plugin.Stopper); ok {
		return p.Stopped(ctx, d.ResultSet)
	}
	return nil
}

// Salvage passes d.ResultSet, or nil if that is nil.
func (d *Drive) Salvage(ctx context.Context, why run.Reason) error {
	p, ok := d.TaskPlugin.(plugin.Salvager)
	switch {
	case !ok:
		return nil
	case d.ResultSet == nil:
		return p.Salvage(ctx, why, nil)
	default:
		return p.Salvage(ctx, why, d.ResultSet)
	}
}

// Finished seals the log and passes it.
func (d *Drive) Finished(ctx context.Context, r run.Resolution) error {
	if err := d.recording.Seal(); err != nil {
		return err
	}
	if p, ok := d.TaskPlugin.(plugin.Finisher); ok {
		return p.Finished(ctx, r, d.recording)
	}
	return nil
}

// Close closes the plugin's part in the run.
func (d *Drive) Close() error {
	if d.TaskPlugin == nil {
		return nil
	}
	return d.TaskPlugin.Close()
}

// Through leads a plugin through all stages of a run that goes well, and returns
// what it left and the errors of its hooks.
func Through(ctx context.Context, p plugin.Plugin, s Setup) (*Drive, error) {
	d, err := Start(p, s)
	if err != nil {
		return d, err
	}
	err = errors.Join(d.Prepare(ctx), d.BuildSandbox(ctx), d.Started(ctx), d.Stopped(ctx))
	resolution := run.Resolution{Outcome: run.Completed}
	if err != nil || !d.ResultSet.Outcome.Success {
		resolution.Outcome = run.Failed
	}
	return d, errors.Join(err, d.Finished(ctx, resolution), d.Close())
}

// Builder records what plugins ask of it.
type Builder struct {
	Env     map[string]string
	Volumes map[string]engine.Volume // by path
	Err     error                    // what each method returns
}

var _ engine.VolumeAttacher = (*Builder)(nil)

// AttachVolume implements engine.VolumeAttacher.
func (b *Builder) AttachVolume(path string, v engine.Volume, _ bool) error {
	if b.Err == nil {
		b.Volumes[path] = v
	}
	return b.Err
}

// SetEnv implements engine.Builder.
func (b *Builder) SetEnv(name, value string) error {
	if b.Err == nil {
		b.Env[name] = value
	}
	return b.Err
}

// Start implements engine.Builder. Plugins have no business calling it.
func (b *Builder) Start(context.Context) (engine.Sandbox, error) {
	return nil, errors.New("plugintest: a plugin starts no sandbox")
}

// Close implements engine.Builder.
func (b *Builder) Close() error { return nil }

// Sandbox runs until a plugin kills it.
type Sandbox struct {
	// KillErr, if not nil, is called for what Kill returns; with an error the
	// sandbox goes on. It is set before Started.
	KillErr func() error

	once   sync.Once
	killed chan struct{}
}

// Killed is closed once the sandbox has been killed.
func (s *Sandbox) Killed() <-chan struct{} { return s.killed }

// Wait implements engine.Sandbox.
func (s *Sandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	select {
	case <-s.killed:
		return &ResultSet{Outcome: engine.Result{ExitCode: -1, Killed: true}, Files: fstest.MapFS{}, WorkDir: Dir}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Kill implements engine.Sandbox.
func (s *Sandbox) Kill(context.Context) error {
	if s.KillErr != nil {
		if err := s.KillErr(); err != nil {
			return err
		}
	}
	s.once.Do(func() { close(s.killed) })
	return nil
}

// Abort implements engine.Sandbox.
func (s *Sandbox) Abort(ctx context.Context) error { return s.Kill(ctx) }

// ResultSet is what a sandbox left behind.
type ResultSet struct {
	Outcome engine.Result
	Files   fs.FS
	WorkDir string
}

// Result implements engine.ResultSet.
func (r *ResultSet) Result() engine.Result { return r.Outcome }

// FS implements engine.ResultSet.
func (r *ResultSet) FS() fs.FS { return r.Files }

// Dir implements engine.ResultSet.
func (r *ResultSet) Dir() string { return r.WorkDir }

// Close implements engine.ResultSet.
func (r *ResultSet) Close() error { return nil }

var (
	_ engine.Builder   = (*Builder)(nil)
	_ engine.Sandbox   = (*Sandbox)(nil)
	_ engine.ResultSet = (*ResultSet)(nil)
)
