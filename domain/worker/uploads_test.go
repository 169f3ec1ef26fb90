package worker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// uploads counts what reaches a store of artifacts.
type uploads struct {
	artifact.Store
	mu    sync.Mutex
	names []string
}

func (u *uploads) Open(queue.Claim) artifact.Store { return u }

func (u *uploads) Upload(_ context.Context, m artifact.Meta, _ artifact.Content) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names = append(u.names, m.Name)
	return nil
}

// uploader uploads "one" and then, after a minute, "two", each as long as it
// says. It holds a volume, and notes what was held before and when it settles.
type uploader struct {
	sizes   map[string]int64
	expires time.Time

	mu      sync.Mutex
	held    map[string]string
	settled []string // what was there when it settled
	resumed bool
}

func (*uploader) Name() string          { return "uploader" }
func (*uploader) PayloadSchema() []byte { return nil }

func (u *uploader) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = t.Held
	return &uploaderTask{u, t}, nil
}

func (u *uploader) Settled(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	what := "nothing"
	if u.resumed {
		what = "resumed"
	}
	u.settled = append(u.settled, what)
	return nil
}

type uploaderTask struct {
	*uploader
	task plugin.Task
}

func (u *uploaderTask) Prepare(context.Context) error {
	u.task.Hold("volume", "cache")
	return nil
}

func (u *uploaderTask) Resumed(context.Context, engine.Sandbox, time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.resumed = true
	return nil
}

func (u *uploaderTask) Stopped(ctx context.Context, _ engine.ResultSet) error {
	for _, name := range []string{"one", "two"} {
		c := artifact.Content{
			Size: u.sizes[name], Length: u.sizes[name],
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(nil)), nil },
		}
		if err := u.task.Artifacts.Upload(ctx, artifact.Meta{Name: name, ContentType: "text/plain", Expires: u.expires}, c); err != nil {
			return err
		}
		if name == "one" {
			time.Sleep(time.Minute) //nolint:forbidigo // the time of a bubble
		}
	}
	return nil
}

func (u *uploaderTask) Close() error { return nil }

func TestWhatWasUploadedIsNotUploadedAgain(t *testing.T) {
	for _, tt := range []struct {
		title string
		sizes map[string]int64 // in the next process
		want  []string         // that it uploads
	}{
		{"the same files", map[string]int64{"one": 1, "two": 2}, []string{"two"}},
		{"a file of another length", map[string]int64{"one": 10, "two": 2}, []string{"one", "two"}},
	} {
		t.Run(tt.title, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				j, first := new(journaltest.Memory), new(uploads)
				e := &enduringEngine{scriptedEngine: f.engine}
				expires := time.Now().Add(time.Hour)
				p := &uploader{sizes: map[string]int64{"one": 1, "two": 2}, expires: expires}
				f.deps.Journal, f.deps.Engine, f.deps.Artifacts, f.deps.Plugins = j, e, first, []plugin.Plugin{p}
				id := f.addTask("ok")
				w, err := worker.New(f.cfg, f.deps)
				if err != nil {
					f.Fatal(err)
				}
				go func() { f.done <- w.Run(f.Context()) }()
				f.sleep(30 * time.Second)
				saved, err := j.Runs() // as it was when the process was killed
				if err != nil || len(saved) != 1 || saved[0].Volumes["volume"] != "cache" || saved[0].State != run.Collecting {
					f.Fatalf("the journal has %+v, %v", saved, err)
				}
				f.expect(id, completed)
				w.MakeWay()
				if err := <-f.done; err != nil && !errors.Is(err, worker.ErrLeft) {
					f.Error(err)
				}
				if !slices.Equal(p.settled, []string{"nothing"}) {
					f.Errorf("the first process settled with %q", p.settled)
				}

				again, next := new(uploads), &uploader{sizes: tt.sizes, expires: expires}
				id = f.leave(j, "ok", journal.Uploaded{Artifact: saved[0].Artifacts["one"]}, journal.Held{Volume: "v", Cache: "c"})
				e.orphans = append(e.orphans, id)
				f.deps.Artifacts, f.deps.Plugins = again, []plugin.Plugin{next}
				f.start()
				f.expect(id, completed)
				f.shutDown()
				if !slices.Equal(again.names, tt.want) {
					f.Errorf("the next process has uploaded %q, want %q", again.names, tt.want)
				}
				if next.held["v"] != "c" || !slices.Equal(next.settled, []string{"resumed"}) {
					f.Errorf("the next process has held %v, and settled with %q", next.held, next.settled)
				}
				synctest.Wait()
			})
		})
	}
}

func TestPluginsSettleThoughARunIsStoppedAtOnce(t *testing.T) {
	bubble(t, func(f *fixture) {
		j, p := new(journaltest.Memory), new(uploader)
		e := &enduringEngine{scriptedEngine: f.engine}
		f.deps.Journal, f.deps.Engine, f.deps.Plugins = j, e, []plugin.Plugin{p}
		f.leave(j, "ok")
		w, err := worker.New(f.cfg, f.deps)
		if err != nil {
			f.Fatal(err)
		}
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		if err := w.Run(ctx); err != nil {
			f.Error(err)
		}
		if len(p.settled) != 1 {
			f.Errorf("settled %d times", len(p.settled))
		}
	})
}
