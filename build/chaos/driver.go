package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/clock"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/faultproxy"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/trace"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/verdict"
)

// image is what containers are made of.
const image = dockertest.Image

// ahead is how many tasks are unresolved at once: more than the worker takes on.
const ahead = 3 * capacity

// driver is one run of the suite.
type driver struct {
	options options
	world   *world
	history *history
	queue   *queue
	client  *client
	proxy   *faultproxy.Proxy
	daemon  *dockertest.Daemon // nil without docker
	worker  *service
	ledger  string // empty if tasks cannot reach it
	groups  trace.Groups
	earlier trace.Groups // those of processes that were there before

	jobs     []job
	resolved atomic.Int64
	progress chan struct{} // holds a token after a task was resolved

	mu   sync.Mutex
	full []span   // when the disk was full
	ill  []string // what the worker did not put up with
}

type span struct{ from, to time.Time }

// run runs the suite, and writes what came of it. It fails if anything is not as
// it should be.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	d := &driver{options: o, history: newHistory(), groups: trace.Groups{}, earlier: trace.Groups{}, progress: make(chan struct{}, 1)}
	fmt.Fprintf(out, "chaos: engine %s, %d tasks, %d kills, seed %d\n", o.engine, o.tasks, o.kills, o.seed)
	if err := d.earlier.Watch(); err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	if err := d.setUp(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	defer func() { err = errors.Join(err, d.tearDown()) }()
	before, err := d.restBefore(ctx)
	if err != nil {
		return err
	}
	if err := d.upheaval(ctx); err != nil {
		d.history.write(out, time.Time{}, time.Now())
		return err
	}
	return d.judge(ctx, out, before)
}

// setUp starts what the worker works with.
func (d *driver) setUp(ctx context.Context) (err error) {
	program, err := os.Open(d.options.worker) // it may be in a directory that another one takes the place of
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	if d.world, err = newWorld(ctx); err != nil {
		return err
	}
	d.options.worker = filepath.Join(d.world.dir, "dc-linux-worker")
	if err := install(d.options.worker, program); err != nil {
		return err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	if d.proxy, err = faultproxy.New(address); err != nil {
		return err
	}
	d.client = newClient(address)
	d.queue = &queue{config: queueConfig{Dir: d.world.queue, Listen: address, RootURL: d.proxy.URL()}}
	if err := d.queue.start(); err != nil {
		return err
	}
	var host string
	if d.options.engine == "docker" {
		if d.daemon, err = dockertest.Start(); err != nil {
			return err
		}
		host = d.daemon.Host()
	} else {
		d.ledger = d.world.ledger
	}
	if d.worker, err = newService(d.options, d.world.disk, d.proxy.URL(), host, d.history); err != nil || !d.options.clock {
		return err
	}
	d.worker.clock = filepath.Join(d.world.dir, "clock")
	return clock.Set(d.worker.clock, 0)
}

func install(name string, from io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// freeAddress returns an address that nobody listens at.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// tearDown ends what setUp has started, and keeps the worker's log.
func (d *driver) tearDown() error {
	err := errors.Join(d.proxy.Close(), d.queue.kill())
	if d.daemon != nil {
		err = errors.Join(err, d.daemon.Stop())
	}
	var log []byte
	if d.options.keep != "" {
		var readErr error
		log, readErr = os.ReadFile(d.worker.log())
		err = errors.Join(err, readErr)
	}
	err = errors.Join(err, d.world.close())
	if d.options.keep != "" {
		// The directory may have been covered until now.
		err = errors.Join(err, os.WriteFile(filepath.Join(d.options.keep, "worker.log"), log, 0o600)) //nolint:gosec // where the caller wants it
	}
	return err
}

// upheaval runs the tasks while everything fails, and ends with a worker that
// was told to stop once all of them are resolved.
func (d *driver) upheaval(ctx context.Context) error {
	r := rand.New(rand.NewPCG(d.options.seed, 1)) //nolint:gosec // chaos needs no secrecy
	for range d.options.tasks {
		d.jobs = append(d.jobs, newJob(r, slug(r), d.options.engine, d.ledger))
	}
	plan := upsets(r, d.options)
	d.worker.start()
	failing, stopFailing := context.WithCancel(ctx)
	defer stopFailing()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	running, stopRunning := context.WithCancel(ctx)
	defer stopRunning()
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { d.watchGroups(watching) })
	wg.Go(func() {
		err := d.fail(failing, rand.New(rand.NewPCG(d.options.seed, 2))) //nolint:gosec // chaos needs no secrecy
		if err != nil {
			stopRunning() // what has failed on purpose does not recover
		}
		failed <- err
	})
	wg.Go(func() { d.upsetAll(failing, plan) })
	err := d.runTasks(running)
	// What is still to be done to the worker is done, whether tasks are left or
	// not; what is under way ends by itself.
	stopFailing()
	err = errors.Join(err, <-failed)
	stopWatching()
	wg.Wait()
	return err
}

// watchGroups finds out which control groups there are.
func (d *driver) watchGroups(ctx context.Context) {
	for ctx.Err() == nil {
		if err := d.groups.Watch(); err != nil {
			d.history.note("control groups cannot be watched", "%v", err)
		}
		wait(ctx, 200*time.Millisecond)
	}
}

// upsetAll does one thing after another to the worker's process, each once
// enough tasks are resolved. What the worker does not put up with is a problem.
func (d *driver) upsetAll(ctx context.Context, plan []upset) {
	for _, u := range plan {
		for int(d.resolved.Load()) < u.after && ctx.Err() == nil {
			select {
			case <-d.progress:
			case <-ctx.Done():
			}
		}
		if wait(ctx, u.delay); ctx.Err() != nil {
			return
		}
		if err := d.upset(ctx, u); err != nil {
			d.history.note("the worker does not stop well", "%v", err)
			d.mu.Lock()
			d.ill = append(d.ill, err.Error())
			d.mu.Unlock()
		}
	}
}

// runTasks creates the tasks, so many ahead, and waits until all are resolved.
func (d *driver) runTasks(ctx context.Context) error {
	waiting := d.jobs
	open := map[string]*jobState{}
	for len(waiting)+len(open) > 0 {
		for len(open) < ahead && len(waiting) > 0 {
			j := waiting[0]
			waiting = waiting[1:]
			if err := d.client.create(ctx, j); err != nil {
				return fmt.Errorf("create task: %w", err)
			}
			open[j.id] = &jobState{job: j}
		}
		wait(ctx, 100*time.Millisecond)
		for id, s := range open {
			over, err := d.look(ctx, s)
			if ctx.Err() != nil {
				return fmt.Errorf("%d of %d tasks are resolved: %w", d.resolved.Load(), len(d.jobs), ctx.Err())
			}
			if err != nil {
				return err
			}
			if over {
				delete(open, id)
				d.resolved.Add(1)
				select {
				case d.progress <- struct{}{}:
				default:
				}
			}
		}
	}
	return nil
}

// jobState is a task that is not resolved yet.
type jobState struct {
	job
	running time.Time // since when it was seen to run
	next    time.Time // when to look at it again
}

// look reports whether a task is resolved, and cancels it if it is time to.
func (d *driver) look(ctx context.Context, s *jobState) (over bool, err error) {
	if time.Now().Before(s.next) {
		return false, nil
	}
	s.next = time.Now().Add(300 * time.Millisecond)
	status, err := d.client.status(ctx, s.id)
	if err != nil {
		return false, fmt.Errorf("look at task: %w", err)
	}
	switch status.State {
	case "completed", "failed", "exception":
		return true, nil
	case "running":
		if s.running.IsZero() {
			s.running = time.Now()
		}
		if s.kind.cancel && time.Since(s.running).Seconds() > 3*s.patience {
			return false, d.client.cancel(ctx, s.id)
		}
	}
	return false, nil
}

// cramped notes that the disk is full, or is not any more.
func (d *driver) cramped(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if full {
		d.full = append(d.full, span{from: time.Now()})
	} else {
		d.full[len(d.full)-1].to = time.Now()
	}
}

// wasCramped reports whether the disk was full during a run. What a run leaves
// is stored for a while after it is resolved.
func (d *driver) wasCramped(r verdict.Run) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.full {
		if s.from.Before(r.Resolved.Add(5*time.Second)) && s.to.After(r.Started) {
			return true
		}
	}
	return false
}
