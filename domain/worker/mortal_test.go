package worker_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// life is that of a process, which is killed as it is about to do something for the
// n-th time. What it does afterwards has no effect.
type life struct {
	dead chan struct{} // closed when it is killed

	mu   sync.Mutex
	left int // what it does yet; any number if negative
	last string
}

var errKilled = errors.New("the process was killed")

func newLife(n int) *life { return &life{dead: make(chan struct{}), left: n} }

// killed reports whether it was.
func (l *life) killed() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// does reports whether the process lives to do something.
func (l *life) does(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed() {
		return false
	}
	l.last = what
	if l.left--; l.left == -1 {
		close(l.dead)
		return false
	}
	l.left = max(l.left, never)
	return true
}

// mortalQueue is a queue as a mortal process has it.
type mortalQueue struct {
	queue.Queue
	l *life
}

func (q mortalQueue) Claim(ctx context.Context, n int) ([]queue.Claim, error) {
	select {
	case <-q.l.dead:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	claims, err := q.Queue.Claim(ctx, n)
	for i, c := range claims {
		claims[i] = mortalClaim{c, q.l}
	}
	return claims, err
}

func (q mortalQueue) Resume(s queue.Saved) (queue.Claim, error) {
	c, err := q.Queue.Resume(s)
	return mortalClaim{c, q.l}, err
}

type mortalClaim struct {
	queue.Claim
	l *life
}

func (c mortalClaim) Reclaim(ctx context.Context) error {
	if !c.l.does("reclaim") {
		return queue.ErrClaimLost
	}
	return c.Claim.Reclaim(ctx)
}

func (c mortalClaim) Resolve(ctx context.Context, r run.Resolution) error {
	if !c.l.does("report") {
		return queue.ErrClaimLost
	}
	err := c.Claim.Resolve(ctx, r)
	if !c.l.does("hear of the report") {
		return queue.ErrClaimLost
	}
	return err
}

// mortalLogs are logs as a mortal process has them.
type mortalLogs struct {
	tasklog.Recorder
	l *life
}

func (r mortalLogs) Record(id task.RunID) (tasklog.Recording, error) {
	if !r.l.does("record") {
		return nil, errKilled
	}
	recording, err := r.Recorder.Record(id)
	return mortalRecording{recording, r.l}, err
}

func (r mortalLogs) Resume(id task.RunID) (tasklog.Recording, tasklog.Position, error) {
	if !r.l.does("resume log") {
		return nil, 0, errKilled
	}
	recording, at, err := r.Recorder.Resume(id)
	return mortalRecording{recording, r.l}, at, err
}

type mortalRecording struct {
	tasklog.Recording
	l *life
}

func (r mortalRecording) Write(p []byte) (int, error) {
	if r.l.does("write to log") {
		return r.Recording.Write(p)
	}
	return len(p), nil
}

func (r mortalRecording) Append(p []byte, at tasklog.Position) {
	if r.l.does("append to log") {
		r.Recording.Append(p, at)
	}
}

func (r mortalRecording) Draft(on bool) {
	if r.l.does("draft") {
		r.Recording.Draft(on)
	}
}

func (r mortalRecording) Seal() error {
	if r.l.does("seal") {
		return r.Recording.Seal()
	}
	return nil
}

func (r mortalRecording) Close() error {
	if r.l.does("close log") {
		return r.Recording.Close()
	}
	return nil
}

// mortalArtifacts are artifacts as a mortal process has them.
type mortalArtifacts struct {
	artifact.Opener
	l *life
}

func (a mortalArtifacts) Open(c queue.Claim) artifact.Store {
	return mortalStore{a.Opener.Open(c), a.l}
}

type mortalStore struct {
	artifact.Store
	l *life
}

func (s mortalStore) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if !s.l.does("upload " + m.Name) {
		return errKilled
	}
	if err := s.Store.Upload(ctx, m, c); err != nil {
		return err
	}
	if !s.l.does("have uploaded " + m.Name) {
		return errKilled
	}
	return nil
}

// boxes are sandboxes that outlive every process.
type boxes struct {
	mu  sync.Mutex
	all map[task.RunID]*box
	ran map[task.RunID]int // how many there were of a run
}

// box is a task in execution. It prints a line when it begins, and one when it ends.
type box struct {
	end  chan string // "kill", or "heed"
	over chan struct{}

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed when there is another line
	result  engine.Result
}

// begin begins the task of a run, whose script is "ok", "fail", or "heed": then it
// runs until it is told to stop.
func (b *boxes) begin(id task.RunID, script string) *box {
	made := &box{end: make(chan string, 1), over: make(chan struct{}), changed: make(chan struct{})}
	b.mu.Lock()
	b.all[id] = made
	b.ran[id]++
	b.mu.Unlock()
	go made.play(script)
	return made
}

// clear removes all sandboxes, as where the host crashes.
func (b *boxes) clear() {
	for _, id := range slices.Collect(maps.Keys(b.all)) {
		b.remove(id)
	}
}

func (b *boxes) remove(id task.RunID) {
	b.mu.Lock()
	made := b.all[id]
	delete(b.all, id)
	b.mu.Unlock()
	if made != nil {
		made.stop("kill")
		<-made.over
	}
}

func (b *box) stop(how string) {
	select {
	case b.end <- how:
	default:
	}
}

func (b *box) play(script string) {
	b.print("output of the task\n")
	lasts := time.Minute
	if script == "heed" {
		lasts = 1000 * time.Hour
	}
	timer := time.NewTimer(lasts)
	defer timer.Stop()
	result := engine.Result{Success: script == "ok"}
	select {
	case <-timer.C:
	case how := <-b.end:
		result = engine.Result{Killed: how == "kill", Interrupted: how == "heed", ExitCode: 1}
	}
	b.print("end of the task\n")
	b.result = result
	close(b.over)
}

func (b *box) print(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	close(b.changed)
	b.changed = make(chan struct{})
}

// line returns a line, or nothing, and what is closed when there is another one.
func (b *box) line(i int) (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i < len(b.lines) {
		return b.lines[i], nil
	}
	return "", b.changed
}

// mortalEngine is the engine of a mortal process.
type mortalEngine struct {
	*scriptedEngine
	l        *life
	b        *boxes
	orphans  []task.RunID
	detached chan struct{} // closed by Detach
	copying  sync.WaitGroup
}

func newMortalEngine(l *life, b *boxes) *mortalEngine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &mortalEngine{
		scriptedEngine: &scriptedEngine{}, l: l, b: b, orphans: slices.Collect(maps.Keys(b.all)), detached: make(chan struct{}),
	}
}

func (e *mortalEngine) NewBuilder(_ context.Context, o engine.Options) (engine.Builder, error) {
	return &mortalBuilder{e, o}, nil
}

func (e *mortalEngine) Orphans(context.Context) ([]task.RunID, error) { return e.orphans, nil }

func (e *mortalEngine) Reattach(_ context.Context, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
	e.b.mu.Lock()
	b := e.b.all[o.Run]
	e.b.mu.Unlock()
	if b == nil || !e.l.does("reattach") {
		return nil, fs.ErrNotExist
	}
	return e.attach(o, b, from), nil
}

func (e *mortalEngine) Discard(_ context.Context, id task.RunID) error {
	if e.l.does("discard") {
		e.b.remove(id)
	}
	return nil
}

func (e *mortalEngine) Detach() error {
	if e.l.does("detach") {
		close(e.detached)
		e.copying.Wait()
	}
	return nil
}

// does reports whether the engine is to do something, since it was not detached.
func (e *mortalEngine) does(what string) bool {
	select {
	case <-e.detached:
		return false
	default:
		return e.l.does(what)
	}
}

func (e *mortalEngine) attach(o engine.Options, b *box, from tasklog.Position) *mortalSandbox {
	s := &mortalSandbox{e, o.Run, b, make(chan struct{})}
	e.copying.Go(func() {
		for i := int(from); i < 2; {
			line, changed := b.line(i)
			if changed == nil {
				i++
				o.Log.Output([]byte(line), tasklog.Position(i))
				continue
			}
			select {
			case <-changed:
			case <-e.l.dead:
				return
			case <-e.detached:
				return
			}
		}
		close(s.copied)
	})
	return s
}

type mortalBuilder struct {
	e *mortalEngine
	o engine.Options
}

func (*mortalBuilder) SetEnv(string, string) error { return nil }
func (*mortalBuilder) Close() error                { return nil }

func (b *mortalBuilder) Start(context.Context) (engine.Sandbox, error) {
	if !b.e.l.does("start") {
		return nil, errKilled
	}
	script := strings.TrimSuffix(strings.TrimPrefix(string(b.o.Payload), `{"script":"`), `"}`)
	made := b.e.b.begin(b.o.Run, script)
	if !b.e.l.does("have started") {
		return nil, errKilled
	}
	return b.e.attach(b.o, made, 0), nil
}

type mortalSandbox struct {
	e      *mortalEngine
	id     task.RunID
	b      *box
	copied chan struct{} // closed when all output is in the log
}

func (s *mortalSandbox) Started() time.Time { return time.Now() }

func (s *mortalSandbox) Wait(ctx context.Context) (engine.ResultSet, error) {
	for _, c := range []<-chan struct{}{s.b.over, s.copied} {
		select {
		case <-c:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.e.l.dead:
			return nil, errKilled
		case <-s.e.detached:
			return nil, engine.ErrDetached
		}
	}
	s.e.b.mu.Lock()
	defer s.e.b.mu.Unlock()
	if s.e.b.all[s.id] != s.b {
		return nil, engine.ErrAborted
	}
	return &mortalResults{s}, nil
}

func (s *mortalSandbox) Kill(context.Context) error {
	if s.e.does("kill") {
		s.b.stop("kill")
	}
	return nil
}

func (s *mortalSandbox) Interrupt(_ context.Context, i engine.Interruption) error {
	if i.Stop && s.e.does("tell") {
		s.b.stop("heed")
	}
	return nil
}

func (s *mortalSandbox) Abort(context.Context) error {
	if s.e.does("abort") {
		s.e.b.remove(s.id)
	}
	return nil
}

type mortalResults struct{ s *mortalSandbox }

func (r *mortalResults) Result() engine.Result { return r.s.b.result }
func (r *mortalResults) FS() fs.FS             { return fstest.MapFS{} }
func (r *mortalResults) Dir() string           { return "task" }

func (r *mortalResults) Close() error {
	if r.s.e.does("close result set") {
		r.s.e.b.remove(r.s.id)
	}
	return nil
}
