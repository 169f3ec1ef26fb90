package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/artifact/artifacttest"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// publisher is a plugin that says something, and publishes a file and the log.
type publisher struct{ refused bool }

func (*publisher) Name() string          { return "publisher" }
func (*publisher) PayloadSchema() []byte { return nil }

func (p *publisher) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	return &publication{t, p.refused}, nil
}

type publication struct {
	t       plugin.Task
	refused bool
}

func (*publication) Close() error { return nil }

func (p *publication) upload(ctx context.Context, name, text string) error {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	c := artifact.Content{Size: int64(len(text)), Length: int64(len(text)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}
	return p.t.Artifacts.Upload(ctx, artifact.Meta{Name: name, ContentType: "text/plain", Expires: p.t.Definition.Expires}, c)
}

func (p *publication) Stopped(ctx context.Context, _ engine.ResultSet) error {
	p.t.Log.Infof("collected")
	if p.refused {
		return fault.Malformedf("the artifact is refused")
	}
	return p.upload(ctx, "file", "content")
}

func (p *publication) Salvage(ctx context.Context, _ run.Reason, r engine.ResultSet) error {
	if r == nil {
		return nil
	}
	p.t.Log.Infof("salvaged")
	return p.upload(ctx, "file", "content")
}

func (p *publication) Finished(ctx context.Context, _ run.Resolution, l plugin.Log) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return p.upload(ctx, "log", string(text))
}

// trial is a task whose worker is killed, at any instant of it.
type trial struct {
	script  string
	refused bool
	stop    time.Duration    // when the worker is told to stop; never if zero
	away    time.Duration    // when the queue is out of reach, for a minute; never if zero
	host    bool             // whether the host crashes, and not the process alone
	leave   time.Duration    // when it is to make way, if it is not killed before; never if zero
	cancel  time.Duration    // when the task is canceled; never if zero
	want    []run.Resolution // what may become of each run
	said    []string         // what is in the log once, of a run that a sandbox ran for
	again   int              // how often it may be there besides, once for each kill
}

// process starts a process of the worker.
func (f *fixture) process(l *life, b *boxes, j journal.Journal, artifacts artifact.Opener, p plugin.Plugin) (w *worker.Worker, stop func(), done <-chan error) {
	f.Helper()
	f.deps.Engine = newMortalEngine(l, b)
	f.deps.Queue, f.deps.Journal, f.deps.Logs = mortalQueue{f.queue, l}, mortalJournal{j, l}, mortalLogs{f.logs, l}
	f.deps.Artifacts, f.deps.Plugins = mortalArtifacts{artifacts, l}, []plugin.Plugin{p}
	w, err := worker.New(f.cfg, f.deps)
	if err != nil {
		f.Fatal(err)
	}
	ctx, stop := context.WithCancel(f.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return w, stop, ended
}

// never is when a process is killed that is not.
const never = -2

// killed has the first process killed at the n-th thing that it does, and the second
// at the m-th, and reports whether the first had so much to do.
func (tt trial) killed(t *testing.T, n, m int) bool {
	t.Helper()
	first := false
	bubble(t, func(f *fixture) {
		f.cfg.Capacity, f.cfg.Handover = 1, time.Second
		b, j := &boxes{all: map[task.RunID]*box{}, ran: map[task.RunID]int{}}, newHostJournal()
		stored := map[task.RunID]string{} // logs of resolved runs, when the host crashed
		artifacts := &artifacttest.Memory{Queue: f.queue}
		var trace bytes.Buffer
		f.deps.Log = slog.New(slog.NewTextHandler(&trace, nil))
		id := f.addTask(tt.script)
		if away := time.Now().Add(tt.away); tt.away > 0 {
			for _, op := range []queuetest.Op{queuetest.Resolve, queuetest.Reclaim, queuetest.Check} {
				f.queue.On(op, func(queuetest.Call) queuetest.Reply {
					if time.Since(away) < 0 {
						return queuetest.Reply{}
					}
					return queuetest.Reply{Delay: max(0, time.Until(away.Add(time.Minute)))}
				})
			}
		}
		lives := []*life{newLife(n), newLife(m), newLife(never)}
		for i, l := range lives {
			w, stop, done := f.process(l, b, j, artifacts, &publisher{tt.refused})
			if i == 0 && tt.leave > 0 {
				time.AfterFunc(tt.leave, w.MakeWay)
			}
			if i == 0 && tt.stop > 0 {
				time.AfterFunc(tt.stop, func() {
					select {
					case <-l.dead:
					default:
						n := interrupt.Notice{Cause: "test", Deadline: time.Now().Add(time.Minute)}
						if tt.away > 0 {
							n.Deadline = time.Now() // which is before the queue is back
						}
						f.notices <- n
					}
				})
			}
			if i == 0 && tt.cancel > 0 {
				time.AfterFunc(tt.cancel, func() { f.queue.Cancel(id.Task) })
			}
			var err error
			select {
			case err = <-done:
			case <-l.dead:
				stop()
				err = <-done
			case <-time.After(3 * time.Hour):
				stop()
				err = <-done
			}
			synctest.Wait()
			stop()
			left := errors.Is(err, worker.ErrLeft)
			if err != nil && !left {
				f.Errorf("process %d ended with %v", i, err)
			}
			first = first || i == 0 && l.killed()
			left = left || i == 0 && tt.away > 0 // somebody has to report
			fmt.Fprintf(&trace, "----- killed: %t, at: %s, %v\n", l.killed(), l.last, err)
			if !l.killed() && !left {
				break
			}
			if tt.host && l.killed() {
				b.clear()
				j, f.logs = j.crash(), new(tasklogtest.Memory)
				for run := range b.ran {
					if log, ok := artifacts.Artifact(run, "log"); ok && f.queue.Resolution(run).Outcome != 0 {
						stored[run] = string(log.Body)
					}
				}
			}
		}
		tt.judge(f, b, j.Memory, artifacts, id)
		for run, before := range stored {
			if log, _ := artifacts.Artifact(run, "log"); strings.Contains(before, "end of the task") && !strings.Contains(string(log.Body), "end of the task") {
				f.Errorf("the log of %v was replaced by\n%s", run, log.Body)
			}
		}
		if f.Failed() {
			f.Logf("killed at %d and %d:\n%s", n, m, trace.String())
		}
	})
	return first
}

// judge looks at what has become of a task.
func (tt trial) judge(f *fixture, b *boxes, j *journaltest.Memory, artifacts *artifacttest.Memory, id task.RunID) {
	f.Helper()
	f.forgotten(j)
	if len(b.all) > 0 {
		f.Errorf("sandboxes are left: %v", b.all)
	}
	for i := range 5 {
		id.Run = i
		got := f.queue.Resolution(id)
		if _, _, err := f.logs.Resume(id); err == nil {
			f.Errorf("the log of run %d is left", i)
		}
		if got == (run.Resolution{}) && b.ran[id] == 0 {
			break
		}
		if b.ran[id] > 1 {
			f.Errorf("run %d was executed %d times", i, b.ran[id])
		}
		if !slices.Contains(tt.want, got) {
			f.Errorf("run %d was resolved %v, want one of %v", i, got, tt.want)
		}
		log, ok := artifacts.Artifact(id, "log")
		if !ok && got != (run.Resolution{}) && (!tt.host || got.Outcome != run.Exception) {
			f.Errorf("run %d has no log", i)
			continue
		}
		if !ok {
			continue
		}
		for _, line := range append([]string{"=== Task Finished ==="}, tt.said...) {
			n := strings.Count(string(log.Body), line)
			if n > 1+tt.again || n == 0 && (b.ran[id] == 1 && got.Reason != run.WorkerShutdown || line == "=== Task Finished ===") {
				f.Errorf("%q is %d times in the log of run %d:\n%s", line, n, i, log.Body)
			}
		}
		if _, ok := artifacts.Artifact(id, "file"); !ok && got == completed {
			f.Errorf("run %d has no file", i)
		}
	}
}

// Whenever a worker is killed, and the next one, the runs come to the same end.
func TestWorkerIsKilledAtAnyInstant(t *testing.T) {
	shutdown := exception(run.WorkerShutdown)
	output := []string{"=== Task Starting ===", "output of the task", "end of the task"}
	for name, tt := range map[string]trial{
		"of a task that succeeds":                                    {script: "ok", want: []run.Resolution{completed, shutdown}, said: append(output, "collected")},
		"of a task that fails":                                       {script: "fail", want: []run.Resolution{failed, shutdown}, said: append(output, "collected")},
		"of a task that is wrong":                                    {script: "wrong", want: []run.Resolution{exception(run.MalformedPayload), shutdown}},
		"of a task that is refused":                                  {script: "ok", refused: true, want: []run.Resolution{exception(run.MalformedPayload), shutdown}, said: []string{"the artifact is refused"}, again: 2},
		"of a task that is told":                                     {script: "heed", stop: 30 * time.Second, want: []run.Resolution{shutdown}, said: output},
		"of a task whose artifacts are stored when the worker stops": {script: "ok", stop: 60500 * time.Millisecond, want: []run.Resolution{shutdown, completed}, said: output},
		"of a task whose log is stored when the worker stops":        {script: "ok", stop: 61500 * time.Millisecond, want: []run.Resolution{shutdown, completed}, said: output},
		"of a task that is stopped when the queue is out of reach":   {script: "heed", stop: 30 * time.Second, away: 20 * time.Second, want: []run.Resolution{shutdown}, said: output},
		"of a task that succeeds when the queue is out of reach":     {script: "ok", stop: 63 * time.Second, away: 20 * time.Second, want: []run.Resolution{shutdown, completed}, said: output},
		"of a task that goes on when the worker makes way":           {script: "ok", leave: 30 * time.Second, want: []run.Resolution{shutdown, completed}, said: append(output, "collected")},
		"of a task whose artifacts are stored when it makes way":     {script: "ok", leave: 60500 * time.Millisecond, want: []run.Resolution{shutdown, completed}, said: append(output, "collected")},
		"of a task whose log is stored when it makes way":            {script: "ok", leave: 61500 * time.Millisecond, want: []run.Resolution{shutdown, completed}, said: append(output, "collected")},
		"of a task that is salvaged when it makes way":               {script: "ok", refused: true, leave: 60500 * time.Millisecond, want: []run.Resolution{exception(run.MalformedPayload), shutdown}, said: []string{"the artifact is refused"}, again: 2},
		"with the host, of a task that succeeds":                     {script: "ok", host: true, want: []run.Resolution{completed, shutdown}},
		"with the host, of a task that fails":                        {script: "fail", host: true, want: []run.Resolution{failed, shutdown}},
		"with the host, of a task that is refused":                   {script: "ok", host: true, refused: true, want: []run.Resolution{exception(run.MalformedPayload), shutdown}},
		"with the host, of a task that is told":                      {script: "heed", host: true, stop: 30 * time.Second, want: []run.Resolution{shutdown}},
		"of a task that is canceled":                                 {script: "heed", cancel: 30 * time.Second, want: []run.Resolution{shutdown, {}}, said: output},
	} {
		t.Run(name, func(t *testing.T) {
			// All pairs of instants would take too long.
			for n := 0; tt.killed(t, n, never) && tt.killed(t, n, n*7%40) && !t.Failed(); n++ {
			}
		})
	}
}
