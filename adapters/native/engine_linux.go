package native

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// sandboxesName is the directory, below Config.Dir, with a directory for each berth.
const sandboxesName = "sandboxes"

// Engine runs tasks as processes of the host.
type Engine struct {
	config   Config
	log      *slog.Logger
	users    *users
	cgroups  *cgroup.Tree      // nil without control groups
	refuge   *cgroup.Refuge    // where supervisors are; nil where there is none
	isolated bool              // tasks have namespaces
	program  *os.File          // to start supervisors from
	replaced map[string]string // as the variable, of the directories that this host has
	inMemory []string          // directories in place of which tasks see ones in memory

	places places

	killPatience time.Duration // how long a supervisor may take to kill a task

	lock       *os.File
	slots      chan struct{} // one for each berth there may be
	ready      chan *berth
	failures   chan error // why there is no berth, for whoever waits for one
	ctx        context.Context
	cancel     context.CancelFunc
	preparers  sync.WaitGroup
	background sync.WaitGroup
	close      func() error

	leaving  atomic.Bool // sandboxes are left to the next process
	mu       sync.Mutex
	occupied map[*berth]struct{} // berths of sandboxes and result sets
	orphans  map[task.RunID]*orphan
}

var (
	_ engine.Engine      = (*Engine)(nil)
	_ engine.Reattacher  = (*Engine)(nil)
	_ engine.Reattached  = (*sandbox)(nil)
	_ engine.Interrupter = (*sandbox)(nil)
)

// New returns an engine on Linux, and a function that closes it. It removes
// what an earlier worker has left in Config.Dir, but for orphans, and fails if another one is
// using it, if Config.Dir is not suitable, or if root cannot isolate tasks.
// Whatever else is missing on this host is a warning.
//
// main must have called supervisor.Main, see there.
func New(ctx context.Context, c Config, log *slog.Logger) (*Engine, func(), error) {
	e := &Engine{config: c.withDefaults(), log: log, isolated: true}
	if err := e.open(ctx); err != nil {
		return nil, nil, fmt.Errorf("native engine: %w", err)
	}
	return e, func() {
		if err := e.Close(); err != nil {
			log.ErrorContext(context.WithoutCancel(ctx), "native engine not closed properly", slog.Any("error", err))
		}
	}, nil
}

func (e *Engine) open(ctx context.Context) (err error) {
	if err := checkDir(e.config.Dir); err != nil {
		return err
	}
	if e.lock, err = lock(filepath.Join(e.config.Dir, "lock")); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("another worker is using the directory %s", e.config.Dir)
	} else if err != nil {
		return fmt.Errorf("lock directory: %w", err)
	}
	e.places = places{dir: filepath.Join(e.config.Dir, sandboxesName), instance: rand.Text()[:8]}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.close = sync.OnceValue(e.shut)
	e.killPatience = 30 * time.Second
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.users, err = newUsers(e.config.UserPrefix); err != nil {
		return err
	}
	if e.users.current != nil {
		e.log.WarnContext(ctx, "not root: tasks run as the worker's own user and can read its files",
			slog.String("user", e.users.current.name))
	}
	if err := e.openCgroups(ctx); err != nil {
		return err
	}
	if err := e.sweep(ctx); err != nil {
		return fmt.Errorf("remove what an earlier worker left: %w", err)
	}
	if e.program, err = openProgram(); err != nil {
		return err
	}
	e.survey()
	return e.fill(ctx)
}

// openCgroups makes the tree of control groups.
func (e *Engine) openCgroups(ctx context.Context) error {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.config.Dir)) // never fails
	name := "taskcluster-worker-" + strconv.FormatUint(uint64(h.Sum32()), 16)
	var err error
	if e.config.OrphanTimeout > 0 {
		if e.refuge, err = cgroup.OpenRefuge(name + "-supervisors"); err != nil {
			e.refuge = nil
			e.log.WarnContext(ctx, "tasks end when a service manager ends this worker: there is no control group outside of the service",
				slog.Any("error", err))
		}
	}
	if e.cgroups, err = cgroup.Open(name); err == nil {
		return nil
	}
	e.cgroups = nil
	if e.config.Limits.MemoryBytes > 0 || e.config.Limits.CPUs > 0 {
		return fmt.Errorf("limits of memory and processors need control groups: %w", err)
	}
	e.log.WarnContext(ctx, "no control groups: tasks run without limits", slog.Any("error", err))
	return nil
}

// survey finds out which directories tasks share on this host.
func (e *Engine) survey() {
	e.replaced = map[string]string{}
	e.places.inside = map[string]fs.FileMode{tellingName: 0o755}
	for name, dir := range replaced {
		if s, err := os.Lstat(dir); err == nil && s.IsDir() {
			e.replaced[name] = dir
			e.places.inside[name] = 0o777 | os.ModeSticky // as /tmp is
		}
	}
	for _, dir := range inMemory {
		if s, err := os.Lstat(dir); err == nil && s.IsDir() {
			e.inMemory = append(e.inMemory, dir)
		}
	}
}

// checkDir checks that tasks can work below dir, and makes it.
func checkDir(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return fmt.Errorf("directory %q: must be an absolute path other than the root", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, sandboxesName), 0o755); err != nil { //nolint:gosec // tasks pass through
		return fmt.Errorf("make directory: %w", err)
	}
	if os.Geteuid() != 0 || replacedAbove(dir) {
		return nil // tasks see a way to it that is made for them
	}
	for at := filepath.Clean(dir); at != "/"; at = filepath.Dir(at) {
		s, err := os.Stat(at)
		if err != nil {
			return err
		}
		if s.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("directory %s: the users of tasks cannot pass through %s, which has mode %v", dir, at, s.Mode())
		}
	}
	return nil
}

// replacedAbove reports whether dir is below a directory that tasks see another
// one in the place of.
func replacedAbove(dir string) bool {
	for _, r := range slices.AppendSeq(slices.Clone(inMemory), maps.Values(replaced)) {
		if strings.HasPrefix(filepath.Clean(dir), r+"/") {
			return true
		}
	}
	return false
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// PayloadSchema implements engine.Engine.
func (e *Engine) PayloadSchema() []byte { return []byte(schema) }

// Close implements engine.Engine. It waits until all that sandboxes have left
// behind is removed.
func (e *Engine) Close() error { return e.close() }

// Detach implements engine.Reattacher.
func (e *Engine) Detach() error {
	e.leaving.Store(true)
	return e.close()
}

func (e *Engine) shut() error {
	e.cancel()
	e.empty()
	e.background.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.places.close()
	for b := range e.occupied {
		err = errors.Join(err, b.closeFiles())
		if b.account.lease != nil {
			err = errors.Join(err, b.account.lease.Close()) // the supervisor has one
		}
	}
	if e.cgroups != nil && len(e.occupied)+len(e.orphans) == 0 {
		err = errors.Join(err, e.cgroups.Close(context.WithoutCancel(e.ctx)))
	}
	if e.refuge != nil {
		err = errors.Join(err, e.refuge.Close())
	}
	if e.users != nil {
		e.users.close()
	}
	if e.program != nil {
		err = errors.Join(err, e.program.Close())
	}
	return errors.Join(err, e.lock.Close())
}
