// Package docker is an engine that executes tasks in containers, by the API of
// a Docker Engine or of what is compatible with it.
//
// A task is one container, whose first process is a program of the worker's own:
// it executes the commands one after the other, and keeps what they print in a
// file, the transcript. So a task depends neither on the worker nor on a
// connection to the daemon, and the next worker that uses the same directory can
// reattach to it. Where none is to come, the first process ends with the worker,
// and with it the task.
package docker

import (
	"context"
	_ "embed" // for the schema
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Name is that of the engine.
const Name = "docker"

// Config says how tasks are executed. The zero value of a field stands for its
// default.
type Config struct {
	Host     string // of the API; default the one that DOCKER_HOST or Docker's own default says
	Instance string // tells what this worker has made from what others have; default "worker"
	Pool     string // worker pool, for the names of scopes
	Dir      string // for what tasks print, absolute, on the daemon's host; default a temporary one: then no task outlives the worker
	Capacity int    // how many tasks run at once; default 1

	Limits          Limits
	Grace           time.Duration // between SIGTERM and SIGKILL
	NewPrivileges   bool          // whether set-user-id programs such as sudo have power in tasks
	Egress          Egress        // default EgressInternet
	Addresses       netip.Prefix  // that networks of tasks are made in; default 10.213.0.0/16
	Runtime         string        // such as runsc; default the daemon's
	UserNamespace   string        // as in docker run --userns
	SeccompProfile  string        // JSON; default the daemon's
	Allow           Allow
	Devices         Devices
	DaemonPatience  time.Duration // how long to wait for a daemon that is gone; default 5 min
	RemovalInterval time.Duration // between attempts to remove what could not be; default 10 s
	OrphanTimeout   time.Duration // for how long a task goes on without a worker; default 1 h; negative if it ends with the worker
	Backlog         int64         // bytes of output that no worker has logged yet, beyond which the task waits; default 1 GiB, at least 32 MiB
}

// Limits is what each task may use; 0 stands for no limit.
type Limits struct {
	MemoryBytes       int64 // with swap
	CPUs              float64
	PIDs              int64
	SharedMemoryBytes int64 // of /dev/shm; 0 for the daemon's default
	DiskBytes         int64 // of the container's file system, where the storage driver can
	OpenFiles         int64
}

// Allow says what tasks can have if they have its scopes, too.
type Allow struct {
	Privileged, DisableSeccomp, Ptrace              bool
	KVM, LoopbackVideo, LoopbackAudio, SharedMemory bool
}

//go:embed payload-schema.json
var payloadSchema []byte

// Engine executes tasks in containers.
type Engine struct {
	config   Config
	daemon   *client.Client
	images   Images
	log      *slog.Logger
	networks *networks
	trash    *trash
	volumes  volumes
	pools    *pools
	shift    shift
	groups   *cgroup.Tree // nil if containers are not in groups of the worker's
	watcher  *watcher
	dataRoot string // see DataRoot

	dir       string // Config.Dir, or a temporary one
	temporary bool
	program   string // path of the first process of containers

	mu       sync.Mutex
	orphans  map[task.RunID]*orphan
	detached atomic.Bool // what there is belongs to the next process

	// ctx ends when the engine is closed, and background with all that the
	// engine does by itself.
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
}

var (
	_ engine.Engine     = (*Engine)(nil)
	_ engine.Volumes    = (*Engine)(nil)
	_ engine.Reattacher = (*Engine)(nil)
)

// ImagesOf makes the store of images on a daemon.
type ImagesOf func(ctx context.Context, daemon *client.Client, log *slog.Logger) (Images, error)

// New connects to the daemon, and removes what an earlier worker of the same
// instance has left there, but for what can be reattached. The function closes
// the engine.
func New(ctx context.Context, c Config, imagesOf ImagesOf, log *slog.Logger) (*Engine, func(), error) {
	c = c.withDefaults()
	e := &Engine{config: c, log: log}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if e.daemon, err = e.connect(); err != nil {
		e.cancel()
		return nil, nil, fmt.Errorf("docker: %w", err)
	}
	if err := e.open(ctx, imagesOf); err != nil {
		return nil, nil, errors.Join(err, e.Close())
	}
	return e, func() {
		if err := e.Close(); err != nil {
			log.WarnContext(ctx, "close docker engine", slog.Any("error", err))
		}
	}, nil
}

func (c Config) withDefaults() Config {
	if c.Instance == "" {
		c.Instance = "worker"
	}
	c.Capacity = max(c.Capacity, 1)
	if c.Egress == "" {
		c.Egress = EgressInternet
	}
	if !c.Addresses.IsValid() {
		c.Addresses = netip.MustParsePrefix("10.213.0.0/16")
	}
	if c.DaemonPatience == 0 {
		c.DaemonPatience = 5 * time.Minute
	}
	if c.RemovalInterval == 0 {
		c.RemovalInterval = 10 * time.Second
	}
	if c.OrphanTimeout == 0 {
		c.OrphanTimeout = time.Hour
	}
	if c.Backlog <= 0 {
		c.Backlog = 1 << 30
	}
	return c
}

func (e *Engine) open(ctx context.Context, imagesOf ImagesOf) (err error) {
	if err := e.openDir(); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	if err := e.reach(ctx); err != nil {
		return fmt.Errorf("docker: reach the daemon at %s: %w", e.daemon.DaemonHost(), err)
	}
	if e.pools, err = newPools(e.config.Devices); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	if e.watcher, err = newWatcher(); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	e.trash = newTrash(e)
	e.networks = newNetworks(e)
	if err := e.sweep(ctx); err != nil {
		return fmt.Errorf("docker: remove what an earlier worker left: %w", err)
	}
	info, err := e.daemon.Info(ctx, client.InfoOptions{})
	if err != nil {
		return fmt.Errorf("docker: ask the daemon about itself: %w", err)
	}
	e.shift = shiftOf(info.Info, e.config.UserNamespace)
	e.dataRoot = localRoot(e.daemon.DaemonHost(), info.Info)
	version, err := e.daemon.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("docker: ask the daemon about itself: %w", err)
	}
	podman := slices.ContainsFunc(version.Components, func(c systemtypes.ComponentVersion) bool { return c.Name == "Podman Engine" })
	e.groups = openGroups(info.Info, podman, e.config.Instance, e.orphanGroups())
	if err := e.checkLimits(ctx); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	if e.images, err = imagesOf(ctx, e.daemon, e.log); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	e.holdForOrphans()
	if err := e.networks.open(ctx); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	return nil
}

// reach connects to the daemon. Where tasks may be waiting for the worker, it
// gives the daemon time to come back.
func (e *Engine) reach(ctx context.Context) error {
	giveUp := time.Now()
	if left, err := os.ReadDir(filepath.Join(e.dir, transcripts)); err == nil && len(left) > 0 {
		giveUp = giveUp.Add(e.config.DaemonPatience)
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := e.ping(ctx)
		if err == nil || ctx.Err() != nil || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// silence is after how long without an answer of the daemon somebody is told.
const silence = 5 * time.Second

// ping asks the daemon whether it is there, and which version of its API it has.
func (e *Engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, fmt.Errorf("no answer within %v", callTime))
	defer cancel()
	told := time.AfterFunc(silence, func() {
		e.log.WarnContext(ctx, "docker daemon does not answer: waiting for it", slog.String("host", e.daemon.DaemonHost()))
	})
	defer told.Stop()
	_, err := e.daemon.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// PayloadSchema implements engine.Engine.
func (e *Engine) PayloadSchema() []byte { return payloadSchema }

// Close implements engine.Engine. What cannot be removed now is left to the next
// worker of the same instance.
func (e *Engine) Close() error {
	if e.detached.Load() {
		return nil
	}
	var errs []error
	e.cancel()
	e.background.Wait()
	if e.networks != nil {
		errs = append(errs, e.networks.close())
	}
	if e.trash != nil {
		e.trash.close(callTime)
	}
	if e.orphans != nil { // it was begun with a sweep
		e.sweepAgain()
	}
	if e.groups != nil {
		e.groups.Sweep(e.orphanGroups()...)
	}
	e.watcher.close()
	errs = append(errs, e.removeDir())
	return errors.Join(append(errs, e.daemon.Close())...)
}

// callTime bounds one call of the API that does not wait for a task. A daemon
// may be frozen for a while without harm.
const callTime = 2 * time.Minute

// call returns the context of a call that is made whatever becomes of ctx, to
// release something say.
func (e *Engine) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), callTime)
}
