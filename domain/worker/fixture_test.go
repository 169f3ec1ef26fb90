package worker_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact/artifacttest"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry/telemetrytest"
)

// fixture is a worker among fakes, in a synctest bubble.
type fixture struct {
	*testing.T
	cfg       worker.Config
	deps      worker.Deps
	queue     *queuetest.Memory
	engine    *scriptedEngine
	logs      *tasklogtest.Memory
	telemetry *telemetrytest.Memory
	notices   notices
	stop      context.CancelFunc
	done      chan error

	mu      sync.Mutex
	reports []worker.Report
}

// bubble runs a test of a worker in a synctest bubble.
func bubble(t *testing.T, test func(*fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{
			T:         t,
			cfg:       worker.Config{Pool: "pool/type", Group: "group", ID: "id", Version: "1.2.3", Capacity: 4},
			queue:     &queuetest.Memory{},
			engine:    &scriptedEngine{},
			logs:      &tasklogtest.Memory{},
			telemetry: &telemetrytest.Memory{},
			notices:   make(notices, 10),
			done:      make(chan error, 1),
		}
		f.deps = worker.Deps{
			Queue:      f.queue,
			Engine:     f.engine,
			Artifacts:  &artifacttest.Memory{},
			Logs:       f.logs,
			Auth:       expander{},
			Interrupts: []interrupt.Source{f.notices},
			Telemetry:  f.telemetry,
			Compile:    func([]byte) (payload.Checker, error) { return strictChecker{}, nil },
			Log:        slog.New(slog.DiscardHandler),
			Observe: func(r worker.Report) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.reports = append(f.reports, r)
			},
		}
		test(f)
	})
}

// sleep lets time pass, which in a bubble takes none.
func (f *fixture) sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of a bubble
}

// start starts the worker, which is stopped at the end of the test.
func (f *fixture) start() {
	f.Helper()
	w, err := worker.New(f.cfg, f.deps)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.done <- w.Run(ctx) }()
	f.Cleanup(cancel)
}

// stopped waits for the worker to have stopped by itself.
func (f *fixture) stopped() error {
	f.Helper()
	err := <-f.done
	if n := f.engine.open(); n != 0 {
		f.Errorf("%d builders, sandboxes or result sets are left open", n)
	}
	return err
}

// shutDown stops the worker and checks that it leaves nothing behind.
func (f *fixture) shutDown() {
	f.Helper()
	f.stop()
	if err := f.stopped(); err != nil {
		f.Errorf("worker ended with %v", err)
	}
	if err := f.telemetry.Misuse(); err != nil {
		f.Error(err)
	}
}

// addTask adds a task whose sandbox follows a script: see scriptedEngine.
func (f *fixture) addTask(script string) task.RunID {
	return task.RunID{Task: f.queue.AddTask(task.Definition{
		Deadline: time.Now().Add(5 * 24 * time.Hour),
		Expires:  time.Now().Add(10 * 24 * time.Hour),
		Payload:  []byte(`{"script":"` + script + `"}`),
	})}
}

// resolution waits for a run to be resolved.
func (f *fixture) resolution(id task.RunID) run.Resolution {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	r, err := f.queue.Resolved(ctx, id)
	if err != nil {
		f.Fatal(err)
	}
	return r
}

func (f *fixture) expect(id task.RunID, want run.Resolution, inLog ...string) {
	f.Helper()
	if got := f.resolution(id); got != want {
		f.Errorf("resolved %v, want %v; log:\n%s", got, want, f.logs.Text(id))
	}
	synctest.Wait()
	for _, text := range inLog {
		if !strings.Contains(f.logs.Text(id), text) {
			f.Errorf("%q is not in the log:\n%s", text, f.logs.Text(id))
		}
	}
}

var (
	completed = run.Resolution{Outcome: run.Completed}
	failed    = run.Resolution{Outcome: run.Failed}
)

func exception(r run.Reason) run.Resolution {
	return run.Resolution{Outcome: run.Exception, Reason: r}
}

// notices is an interrupt.Source.
type notices chan interrupt.Notice

func (n notices) Wait(ctx context.Context) (interrupt.Notice, error) {
	select {
	case notice := <-n:
		return notice, nil
	case <-ctx.Done():
		return interrupt.Notice{}, ctx.Err()
	}
}

// expander knows one role.
type expander struct{}

func (expander) Expand(_ context.Context, s task.Scopes) (task.Scopes, error) {
	if s.Satisfy("assume:broken") {
		return nil, errors.New("503")
	}
	if s.Satisfy("assume:role") {
		return append(s, "role:scope"), nil
	}
	return s, nil
}

// strictChecker refuses payloads with the property "wrong".
type strictChecker struct{}

func (strictChecker) Check(doc []byte) ([]payload.Violation, error) {
	if strings.Contains(string(doc), "wrong") {
		return []payload.Violation{{Path: "payload.wrong", Message: "unknown property"}}, nil
	}
	return nil, nil
}

// scriptedEngine runs sandboxes that do what payload.script says, word by word:
// "ok", "fail", "sleep <duration>", "forever", "build-panic", "no-start",
// "deaf" (a Start that ignores its context for an hour), "late" (one that does
// for five seconds, before "forever"), "heed <duration>" (a task that ends so long
// after it was told to stop), "ignore" (one that does not).
type scriptedEngine struct {
	mu   sync.Mutex
	held int
	peak int
	told []telling
	mute bool // Interrupt returns once its context is done
}

func (e *scriptedEngine) Name() string { return "scripted" }

func (e *scriptedEngine) PayloadSchema() []byte {
	return []byte(`{"type":"object","properties":{"script":{"type":"string"}}}`)
}

func (e *scriptedEngine) Close() error { return nil }

func (e *scriptedEngine) hold(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held += n
	e.peak = max(e.peak, e.held)
}

func (e *scriptedEngine) open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held
}

func (e *scriptedEngine) NewBuilder(_ context.Context, o engine.Options) (engine.Builder, error) {
	script := strings.TrimSuffix(strings.TrimPrefix(string(o.Payload), `{"script":"`), `"}`)
	if script == "build-panic" {
		panic("out of luck")
	}
	e.hold(1)
	return &scriptedBuilder{e: e, o: o, script: script, env: map[string]string{}}, nil
}

type scriptedBuilder struct {
	e      *scriptedEngine
	o      engine.Options
	script string
	env    map[string]string
	gone   bool
}

func (b *scriptedBuilder) SetEnv(name, value string) error {
	b.env[name] = value
	return nil
}

func (b *scriptedBuilder) Start(context.Context) (engine.Sandbox, error) {
	b.gone = true
	switch b.script {
	case "no-start":
		b.e.hold(-1)
		return nil, errors.New("no space left")
	case "deaf":
		time.Sleep(time.Hour) //nolint:forbidigo // the time of a bubble
	case "late":
		time.Sleep(5 * time.Second) //nolint:forbidigo // the time of a bubble
	}
	s := &scriptedSandbox{e: b.e, end: make(chan string, 2), over: make(chan struct{})}
	go s.play(b.script, b.o)
	if rest, ok := strings.CutPrefix(b.script, "heed "); ok {
		takes, _ := time.ParseDuration(rest)
		return &heedfulSandbox{s, takes}, nil
	}
	if b.script == "ignore" {
		return &heedfulSandbox{s, 1000 * time.Hour}, nil
	}
	return s, nil
}

func (b *scriptedBuilder) Close() error {
	if !b.gone {
		b.e.hold(-1)
	}
	b.gone = true
	return nil
}

type scriptedSandbox struct {
	e       *scriptedEngine
	end     chan string // "kill", "abort" or "heed"
	over    chan struct{}
	result  engine.Result
	aborted atomic.Bool
}

func (s *scriptedSandbox) play(script string, o engine.Options) {
	defer close(s.over)
	_, _ = o.Log.Write([]byte("output of the task\n"))
	duration := time.Duration(0)
	if rest, ok := strings.CutPrefix(script, "sleep "); ok {
		duration, _ = time.ParseDuration(rest)
	}
	if script == "forever" || script == "late" || script == "ignore" || strings.HasPrefix(script, "heed ") {
		duration = 1000 * time.Hour
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.result.Success = script != "fail"
	case how := <-s.end:
		s.aborted.Store(how == "abort")
		s.result.Killed = how != "heed"
		s.result.Success, s.result.Interrupted = how == "heed", how == "heed"
	}
	if s.aborted.Load() {
		s.e.hold(-1)
	}
}

func (s *scriptedSandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.over:
	}
	if s.aborted.Load() {
		return nil, engine.ErrAborted
	}
	return &scriptedResults{s: s}, nil
}

func (s *scriptedSandbox) Kill(context.Context) error {
	select {
	case s.end <- "kill":
	default:
	}
	return nil
}

func (s *scriptedSandbox) Abort(context.Context) error {
	select {
	case s.end <- "abort":
	default:
	}
	<-s.over
	if s.aborted.CompareAndSwap(false, true) { // it ended on its own, and nobody took the results
		s.e.hold(-1)
	}
	return nil
}

type scriptedResults struct {
	s    *scriptedSandbox
	once sync.Once
}

func (r *scriptedResults) Result() engine.Result { return r.s.result }
func (r *scriptedResults) FS() fs.FS             { return fstest.MapFS{} }
func (r *scriptedResults) Dir() string           { return "task" }

func (r *scriptedResults) Close() error {
	r.once.Do(func() { r.s.e.hold(-1) })
	return nil
}

// scriptedPlugin has hooks as a test gives them.
type scriptedPlugin struct {
	name    string
	schema  string
	newPart func(plugin.Task) error
	names   []string
	prepare func(context.Context) error
	build   func(context.Context, engine.Builder) error
	started func(context.Context, engine.Sandbox) error
	stopped func(context.Context, engine.ResultSet) error
	salvage func(context.Context, run.Reason, engine.ResultSet) error
	finish  func(context.Context, run.Resolution, plugin.Log) error
	closed  func()
}

func (p *scriptedPlugin) Name() string          { return p.name }
func (p *scriptedPlugin) PayloadSchema() []byte { return []byte(p.schema) }

func (p *scriptedPlugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	if p.newPart != nil {
		if err := p.newPart(t); err != nil {
			return nil, err
		}
	}
	return (*scriptedPart)(p), nil
}

type scriptedPart scriptedPlugin

func (p *scriptedPart) ArtifactNames() []string { return p.names }

func (p *scriptedPart) Prepare(ctx context.Context) error {
	if p.prepare == nil {
		return nil
	}
	return p.prepare(ctx)
}

func (p *scriptedPart) BuildSandbox(ctx context.Context, b engine.Builder) error {
	if p.build == nil {
		return nil
	}
	return p.build(ctx, b)
}

func (p *scriptedPart) Started(ctx context.Context, s engine.Sandbox) error {
	if p.started == nil {
		return nil
	}
	return p.started(ctx, s)
}

func (p *scriptedPart) Stopped(ctx context.Context, r engine.ResultSet) error {
	if p.stopped == nil {
		return nil
	}
	return p.stopped(ctx, r)
}

func (p *scriptedPart) Salvage(ctx context.Context, why run.Reason, r engine.ResultSet) error {
	if p.salvage == nil {
		return nil
	}
	return p.salvage(ctx, why, r)
}

func (p *scriptedPart) Finished(ctx context.Context, r run.Resolution, log plugin.Log) error {
	if p.finish == nil {
		return nil
	}
	return p.finish(ctx, r, log)
}

func (p *scriptedPart) Close() error {
	if p.closed != nil {
		p.closed()
	}
	return nil
}
