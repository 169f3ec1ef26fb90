package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/clock"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/faultproxy"
)

// The two kinds of what goes wrong have a sequence each, so that they overlap:
// the worker's process is ended and stopped in one, and in the other the
// world around it fails.

// upset is what is done to the worker's process, once some tasks are resolved.
type upset struct {
	name  string
	after int           // how many tasks are resolved
	delay time.Duration // from then on
	down  time.Duration // until the worker runs again
	call  faultproxy.Call
	at    faultproxy.Moment
}

// The names of upsets.
const (
	kill   = "kill -9"
	killAt = "kill -9 at a call"
	freeze = "SIGSTOP"
	term   = "SIGTERM"
	usr1   = "SIGUSR1"
	hup    = "SIGHUP" // an upgrade in place
)

// upsets returns what is done to the worker's process in a run of the suite. A
// share of it comes on top of the kills.
func upsets(r *rand.Rand, o options) []upset {
	var all []upset
	for i := range o.kills {
		all = append(all, upset{name: kill})
		if i%3 == 0 {
			calls, moments := faultproxy.Calls(), faultproxy.Moments()
			all[i].name, all[i].call, all[i].at = killAt, calls[r.IntN(len(calls))], moments[r.IntN(len(moments))]
		}
	}
	first := r.IntN(4)
	for i := range max(o.kills/4, 1) {
		all = append(all, upset{name: []string{freeze, term, usr1, hup}[(first+i)%4]})
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i := range all {
		all[i].after = i * o.tasks / (len(all) + 1)
		all[i].delay = time.Duration(r.Int64N(int64(1500 * time.Millisecond)))
		all[i].down = time.Duration(r.Int64N(int64(2 * time.Second)))
		if r.IntN(12) == 0 {
			all[i].down = lease + time.Second // nothing can be reclaimed any more
		}
	}
	return all
}

// upset does to the worker's process what u says.
func (d *driver) upset(ctx context.Context, u upset) error {
	switch u.name {
	case kill:
		d.history.note(kill, "down for %v", u.down)
		d.worker.kill(u.down)
	case killAt:
		sprung := make(chan struct{})
		d.proxy.Set(&faultproxy.Trap{Call: u.call, Moment: u.at, Do: func() {
			d.history.note(killAt, "%s is %s, down for %v", u.call, u.at, u.down)
			d.worker.kill(u.down)
			close(sprung)
		}})
		select {
		case <-sprung:
		case <-time.After(4 * time.Second):
			d.proxy.Set(nil)
			select {
			case <-sprung:
			default:
				d.history.note(kill, "no call came, down for %v", u.down)
				d.worker.kill(u.down)
			}
		}
	case freeze:
		long := u.down + lease/2
		d.history.note(freeze, "for %v", long)
		d.worker.freeze(ctx, long)
	case hup:
		d.history.note(hup, "the worker takes its own place")
		d.worker.upgrade()
	case term:
		d.history.note(term, "down for %v", u.down)
		return d.worker.stop(syscall.SIGTERM, u.down, false)
	case usr1:
		if err := d.worker.settle(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		d.history.note(usr1, "down for %v", u.down)
		return d.worker.stop(syscall.SIGUSR1, u.down, false)
	}
	return nil
}

// failure is something that fails around the worker, and recovers.
type failure struct {
	name  string
	begin func(ctx context.Context) error
	end   func() error
	long  time.Duration // the longest time that it lasts
}

// failures returns what may fail.
func (d *driver) failures(r *rand.Rand) []failure {
	var all []failure
	for _, f := range faultproxy.Faults() {
		all = append(all, failure{
			name: "network: " + string(f), long: 3 * time.Second, end: d.proxy.End,
			begin: func(context.Context) error { return d.proxy.Begin(f, 0.7, lease/2, r.Uint64()) },
		})
	}
	all = append(all,
		failure{name: "queue is killed", long: 2 * time.Second, begin: func(context.Context) error { return d.queue.kill() }, end: d.queue.start},
		failure{name: "disk is full", long: 3 * time.Second, begin: func(context.Context) error { return d.fillDisk() }, end: d.emptyDisk},
	)
	if d.options.clock {
		all = append(all, failure{
			name: "clock jumps", long: 3 * time.Second, end: func() error { return clock.Set(d.worker.clock, 0) },
			begin: func(context.Context) error {
				return clock.Set(d.worker.clock, time.Duration(r.Int64N(int64(2*greatestJump)))-greatestJump)
			},
		})
	}
	if d.daemon != nil {
		all = append(all,
			failure{name: "docker is restarted", long: time.Second, begin: func(context.Context) error { d.daemon.Terminate(); return nil }, end: d.relaunch},
			failure{name: "docker is killed", long: time.Second, begin: func(context.Context) error { d.daemon.Kill(); return nil }, end: d.relaunch},
			failure{name: "docker hangs", long: 5 * time.Second, begin: func(context.Context) error { return d.daemon.Freeze() }, end: d.daemon.Thaw},
		)
	}
	return all
}

// relaunch starts a daemon that has ended. One that was making a network may not
// start again before somebody has removed its networks.
func (d *driver) relaunch() error {
	err := d.daemon.Launch()
	if err == nil || !strings.Contains(d.daemon.Log(), "libnetwork") {
		return err
	}
	d.history.note("docker has lost its networks", "%.300s", err.Error())
	return errors.Join(d.daemon.ForgetNetworks(), d.daemon.Launch())
}

// fail has one thing after another fail, until ctx is done.
func (d *driver) fail(ctx context.Context, r *rand.Rand) error {
	all := d.failures(r)
	for {
		// Every failure comes once before any comes again.
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, f := range all {
			wait(ctx, time.Duration(r.Int64N(int64(2*time.Second))))
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it is time to stop
			}
			long := f.long/4 + time.Duration(r.Int64N(int64(f.long*3/4)))
			d.history.note(f.name, "for %v", long)
			err := f.begin(ctx)
			wait(ctx, long)
			if err := errors.Join(err, f.end()); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			d.history.over(f.name)
		}
	}
}

// ballast is the file that fills the worker's disk.
func (d *driver) ballast() string { return filepath.Join(d.world.disk, "ballast") }

// greatestJump is how far the worker's clock jumps at the most. Services refuse
// what is signed with a clock that differs by more than 15 minutes.
const greatestJump = 10 * time.Minute

// fillDisk leaves no room on the worker's disk.
func (d *driver) fillDisk() (err error) {
	d.cramped(true)
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for size := int64(1 << 20); size > 0; {
		var end int64
		if end, err = f.Seek(0, 2); err != nil {
			return err
		}
		if err = unix.Fallocate(int(f.Fd()), 0, end, size); errors.Is(err, unix.ENOSPC) {
			size /= 2
			if size < 4096 {
				size = 0
			}
			continue
		}
		if err != nil {
			return err
		}
		if _, err = f.Seek(end+size, 0); err != nil {
			return err
		}
	}
	return nil
}

// emptyDisk makes room again.
func (d *driver) emptyDisk() error {
	defer d.cramped(false)
	return os.Remove(d.ballast())
}
