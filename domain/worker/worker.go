// Package worker claims tasks and sees them through: the use cases of the
// product, written against ports alone.
//
// A [Worker] claims runs while it has free slots and gives each claim to a
// runner. One goroutine of the runner owns the state of the run; reclaiming,
// cancellation, the task's deadline and interruption of the host cancel the
// context of its work with a cause, which the owner turns into an event.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// MaxCapacity is the greatest number of tasks that a worker runs at once.
const MaxCapacity = 250

// ErrUnhealthy is returned by [Worker.Run] after as many internal errors in a
// row as the configuration allows.
var ErrUnhealthy = errors.New("worker: too many internal errors in a row")

// ErrLeft is returned by [Worker.Run] after [Worker.MakeWay].
var ErrLeft = errors.New("worker: the next process goes on with the runs")

// ErrUnresumed is returned by [Worker.Run] when it cannot know what an earlier
// process has left. Its tasks may be running, and the next process may know.
var ErrUnresumed = errors.New("worker: what an earlier process has left cannot be read")

// Config is what an operator may choose about a worker. The zero value of a
// duration or count stands for its default.
type Config struct {
	Pool     string // task queue to claim from, such as "proj/linux"
	Group    string // worker group
	ID       string // worker id
	Version  string // of the worker, for the head of task logs
	Instance string // instance type, for the head of task logs; may be empty

	Capacity int           // tasks at once, 1 to MaxCapacity; default 1
	Tasks    int           // runs after which the worker drains; any number if zero
	Poll     time.Duration // between checks for cancellation; default 30 s
	Salvage  time.Duration // the longest time for saving what an exception leaves; default 15 min
	Cleanup  time.Duration // how long a hook may go on after its run was stopped; default 5 min
	Lead     time.Duration // how long before the host goes away running tasks are stopped; default 5 min, none if negative
	Grace    time.Duration // how long a task that is told to stop has, if half of the time left is not less; default 30 s, none if negative
	Handover time.Duration // how long a worker that makes way waits for runs without a task that goes on; default 30 s
	Faults   int           // internal errors in a row after which the worker stops; default 5
}

// Deps are the ports that a worker works through. All are required, but for
// Journal, Interrupts, Disabled, Fetch, Translate, Began and Observe.
type Deps struct {
	Queue      queue.Queue
	Engine     engine.Engine
	Plugins    []plugin.Plugin // in the order in which their hooks run
	Disabled   []plugin.Plugin // known, but refused to tasks that ask for them
	Artifacts  artifact.Opener
	Logs       tasklog.Recorder
	Journal    journal.Journal // nil for none: then no run outlives the process
	Auth       auth.Expander
	Fetch      fetch.Source // nil for none
	Translate  payload.Translator
	Interrupts []interrupt.Source
	Telemetry  telemetry.Telemetry
	Compile    payload.Compiler
	Log        *slog.Logger

	// Began is called once for each run that begins, or that an earlier process
	// began, from the run's own goroutine, while it has its slot.
	Began func(task.RunID)

	// Observe is called once for each run that is over, from the run's own
	// goroutine, before its slot is free.
	Observe func(Report)
}

// Report is what became of a run.
type Report struct {
	Run        task.RunID
	Resolution run.Resolution
	Stages     map[run.State]time.Duration // time spent in each state
}

// Worker claims tasks and sees them through.
type Worker struct {
	cfg    Config
	deps   Deps
	schema *payload.Schema

	drain  *drain
	slots  *slots
	stay   context.Context // ends when the next process is to take over
	leave  context.CancelFunc
	left   atomic.Bool   // what there is belongs to the next process
	moved  chan struct{} // holds a token after a run has come to another state
	active sync.Map      // *runner → nil
	asking asking        // the call for work that is in flight

	resuming sync.WaitGroup // runs of an earlier process that may yet be resumed, and sandboxes that are not
	settling sync.WaitGroup // for what follows that

	health health
}

// New returns a worker. It fails if the configuration is out of range or the
// payload schemas of engine and plugins do not fit together.
func New(cfg Config, deps Deps) (*Worker, error) {
	if cfg.Capacity == 0 {
		cfg.Capacity = 1
	}
	if cfg.Capacity < 1 || cfg.Capacity > MaxCapacity {
		return nil, fmt.Errorf("capacity is %d, must be 1 to %d", cfg.Capacity, MaxCapacity)
	}
	setDefault(&cfg.Poll, 30*time.Second)
	setDefault(&cfg.Salvage, 15*time.Minute)
	setDefault(&cfg.Cleanup, 5*time.Minute)
	setDefault(&cfg.Lead, 5*time.Minute)
	setDefault(&cfg.Grace, 30*time.Second)
	setDefault(&cfg.Handover, 30*time.Second)
	setDefault(&cfg.Faults, 5)
	schema, err := composeSchema(deps)
	if err != nil {
		return nil, err
	}
	stay, leave := context.WithCancel(context.Background())
	return &Worker{
		cfg:    cfg,
		deps:   deps,
		schema: schema,
		slots:  newSlots(cfg.Capacity, cfg.Tasks),
		stay:   stay,
		leave:  leave,
		moved:  make(chan struct{}, 1),
		health: health{limit: cfg.Faults},
	}, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// PayloadSchema returns the JSON schema of the payloads that the worker takes.
func (w *Worker) PayloadSchema() []byte { return w.schema.Document() }

// Run goes on with the runs of an earlier process, claims and executes tasks
// until an interruption, and returns once every run is disposed of. Canceling
// ctx is an interruption that leaves no time. It must be called once.
//
// Errors: ErrUnhealthy; ErrLeft, after MakeWay, maybe with runs that the process
// must end in the middle of; ErrUnresumed, before anything was done.
func (w *Worker) Run(ctx context.Context) error {
	defer w.leave()
	w.drain = newDrain(w.cfg.Lead, w.cfg.Grace, w.deps.Log)
	stopListening := w.drain.listen(ctx, w.deps.Interrupts)
	defer stopListening()
	stopPolling := w.pollForCancellation()
	defer stopPolling()
	claiming, stopClaiming := context.WithCancel(w.drain.claiming)
	defer stopClaiming()
	defer context.AfterFunc(w.stay, stopClaiming)()

	if err := w.resumeAll(ctx); err != nil {
		w.drain.close()
		return err
	}
	w.claimWhileAllowed(claiming)
	if w.slots.spent() {
		w.drain.notice(interrupt.Notice{Cause: fmt.Sprintf("number of tasks reached: %d", w.cfg.Tasks)})
	}
	w.slots.waitIdle(w.stay)
	if w.makesWay() {
		w.drain.close()
		return ErrLeft
	}
	w.slots.waitIdle(context.Background())
	w.settling.Wait()
	madeWay := w.mayMakeWay()
	w.drain.close()
	if madeWay {
		return ErrLeft
	}
	if w.health.sick() {
		return ErrUnhealthy
	}
	return nil
}

// claimWhileAllowed keeps one call for work in flight while any slot is free,
// until ctx is done.
func (w *Worker) claimWhileAllowed(ctx context.Context) {
	failures := 0
	for {
		free := w.slots.waitFree(ctx)
		if free == 0 || ctx.Err() != nil {
			return
		}
		claims, err := w.claim(ctx, min(free, queue.MaxClaims))
		// Claims that came while the worker began to drain are run or
		// reported like any other.
		for _, c := range claims {
			w.slots.take()
			go func() {
				defer w.tellMoved()
				defer w.slots.release()
				w.process(w.begin(c))
			}()
		}
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		failures++
		pause := backOff(failures, time.Second, time.Minute)
		w.deps.Log.WarnContext(ctx, "claim failed", slog.Any("error", err), slog.Duration("retryIn", pause))
		wait(ctx, pause)
	}
}

// process sees one run through and keeps count of internal errors.
func (w *Worker) process(r *runner) {
	w.active.Store(r, nil)
	defer w.active.Delete(r)
	if w.deps.Began != nil {
		w.deps.Began(r.claim.Run())
	}
	report := r.live()
	if r.gone {
		return
	}
	if w.health.record(report.Resolution.Reason == run.InternalError) {
		w.drain.notice(interrupt.Notice{Cause: ErrUnhealthy.Error()})
	}
	if w.deps.Observe != nil {
		w.deps.Observe(report)
	}
}

// health counts internal errors in a row. Once there were too many, it stays so.
type health struct {
	limit int

	mu    sync.Mutex
	inRow int
	bad   bool
}

// record takes note of a run and reports whether it is the one too many.
func (h *health) record(internalError bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !internalError {
		h.inRow = 0
		return false
	}
	h.inRow++
	if h.inRow < h.limit || h.bad {
		return false
	}
	h.bad = true
	return true
}

func (h *health) sick() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bad
}

// backOff returns how long to wait after so many failures in a row: a random
// time below a bound that doubles up to limit, but no less than half of it.
func backOff(failures int, start, limit time.Duration) time.Duration {
	bound := start << min(failures-1, 10)
	bound = min(bound, limit)
	return bound/2 + rand.N(bound/2+1) //nolint:gosec // spreading load needs no secrecy
}

// wait waits for d to pass or ctx to be done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
