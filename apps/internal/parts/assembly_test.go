package parts

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/domain/worker"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// life takes note of what happens at the end of a worker's life.
type life struct {
	identity.Provider
	refusal error // of the deployment, and of the host
	events  []string
}

func (l *life) Remove(context.Context) error {
	l.events = append(l.events, "removed")
	return l.refusal
}

func (l *life) ReportError(_ context.Context, r identity.Report) error {
	l.events = append(l.events, "reported "+r.Kind)
	return nil
}

func (l *life) Retire(ctx context.Context, why string) error {
	l.events = append(l.events, "retired: "+why)
	return errors.Join(ctx.Err(), l.refusal)
}

// unreadable is a journal that the system does not let be read.
type unreadable struct{ journal.Journal }

func (unreadable) Runs() ([]journal.Saved, error) { return nil, syscall.EMFILE }

// newAssembly returns a worker of an embedded queue, which a notice or MakeWay
// ends.
func newAssembly(t *testing.T, server *devqueue.Server, l *life, token string, j journal.Journal) (*Assembly, *interrupttest.Memory) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	d := Deployment{
		RootURL: server.RootURL(), Credentials: server.Credentials(), RetryFor: time.Second,
		Worker: identity.Worker{Pool: "proj/test", Group: "group", ID: "worker"},
	}
	if token != "" {
		d.Credentials.AccessToken = token
	}
	client, shut, err := taskcluster.NewClient(TaskclusterConfig(section.Linux{}, d), telemetry.Off{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shut)
	notices := &interrupttest.Memory{}
	cfg := WorkerConfig(section.Worker{Capacity: 1}, section.Lifecycle{}, Hooks{}, d, Program{Name: "test"})
	w, err := worker.New(cfg, NewDeps(Parts{
		Interrupts: []interrupt.Source{notices}, Queue: taskcluster.NewQueue(client), Engine: IdleEngine(section.Linux{}),
		Journal: j, Telemetry: telemetry.Off{}, Log: log,
	}))
	if err != nil {
		t.Fatal(err)
	}
	caught := signals.Catch()
	t.Cleanup(caught.Release)
	return &Assembly{Config: cfg, Deployment: d, Worker: w, Client: client, Identity: l, Host: l, Hooks: Hooks{Signals: caught}}, notices
}

// A worker is removed before all that it is made of is closed, and its host
// retires at the very end: if it has done all that it ever will.
func TestWork(t *testing.T) {
	server, shut, err := devqueue.Open(t.Context(), devqueue.Config{Dir: filepath.Join(t.TempDir(), "queue")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer shut()
	errRefused := errors.New("refused")
	for _, tt := range []struct {
		name    string
		prepare func(*Assembly, *interrupttest.Memory)
		token   string
		journal journal.Journal
		refusal error
		fails   bool
		want    []string
	}{
		{
			name:    "an interruption",
			prepare: func(_ *Assembly, n *interrupttest.Memory) { n.Announce(interrupt.Notice{Cause: "no more"}) },
			want:    []string{"removed", "closed", "retired: the worker has stopped"},
		},
		{
			name:    "a deployment and a host that do not let it go",
			prepare: func(_ *Assembly, n *interrupttest.Memory) { n.Announce(interrupt.Notice{Cause: "no more"}) },
			refusal: errRefused,
			want:    []string{"removed", "closed", "retired: the worker has stopped"},
		},
		{
			name: "a machine that stays",
			prepare: func(a *Assembly, n *interrupttest.Memory) {
				a.Host = nil
				n.Announce(interrupt.Notice{Cause: "no more"})
			},
			refusal: errors.ErrUnsupported,
			want:    []string{"removed", "closed"},
		},
		{
			name:    "the next process",
			prepare: func(a *Assembly, _ *interrupttest.Memory) { a.Worker.MakeWay() },
			want:    []string{"closed"},
		},
		{
			name:    "a deployment that does not accept it",
			prepare: func(*Assembly, *interrupttest.Memory) {},
			token:   "wrong", fails: true,
			want: []string{"closed"},
		},
		{
			name:    "a journal that cannot be read for now",
			prepare: func(*Assembly, *interrupttest.Memory) {},
			journal: unreadable{}, fails: true,
			want: []string{"reported startup-error", "closed"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &life{refusal: tt.refusal}
			a, notices := newAssembly(t, server, l, tt.token, tt.journal)
			tt.prepare(a, notices)
			err := a.Work(t.Context(), func() { l.events = append(l.events, "closed") }, slog.New(slog.DiscardHandler))
			if (err != nil) != tt.fails {
				t.Errorf("error is %v", err)
			}
			if diff := cmp.Diff(tt.want, l.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
