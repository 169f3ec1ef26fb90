package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

const (
	workDirVariable = "TASK_WORKDIR"
	defaultPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// builder is a sandbox in the making. It holds nothing before Start.
type builder struct {
	e       *Engine
	o       engine.Options
	payload payload
	groups  []uint32
	env     map[string]string
	closed  bool
}

// NewBuilder implements engine.Engine.
func (e *Engine) NewBuilder(ctx context.Context, o engine.Options) (engine.Builder, error) {
	p, err := parsePayload(o.Payload)
	if err != nil {
		return nil, err
	}
	groups, err := e.groups(ctx, o, p.OSGroups)
	if err != nil {
		return nil, err
	}
	return &builder{e: e, o: o, payload: p, groups: groups, env: map[string]string{}}, nil
}

// groups returns the numbers of the host's groups with the given names, if the
// task may use them.
func (e *Engine) groups(ctx context.Context, o engine.Options, names []string) ([]uint32, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var scopes task.Scopes
	for _, name := range names {
		scopes = append(scopes, "generic-worker:os-group:"+o.Definition.TaskQueueID+"/"+name)
	}
	if err := o.Authorize(ctx, scopes); err != nil {
		return nil, err
	}
	if e.users.current != nil {
		return nil, fault.Malformedf("payload.osGroups: this worker does not run as root and cannot put users into groups")
	}
	groups := make([]uint32, 0, len(names))
	for _, name := range names {
		g, err := user.LookupGroup(name)
		if errors.As(err, new(user.UnknownGroupError)) {
			return nil, fault.Malformedf("payload.osGroups: this worker has no group %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("look up group %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up group %s: %w", name, err)
		}
		groups = append(groups, uint32(gid))
	}
	return groups, nil
}

// SetEnv implements engine.Builder.
func (b *builder) SetEnv(name, value string) error {
	if err := checkVariable(name, value); err != nil {
		return err
	}
	b.env[name] = value
	return nil
}

// Start implements engine.Builder.
func (b *builder) Start(ctx context.Context) (engine.Sandbox, error) {
	if b.closed {
		return nil, errors.New("native: builder is closed")
	}
	b.closed = true
	// Those that were idle may have been ended all at once, by the host's OOM
	// killer say: as they have not begun the task, another one can.
	for left := b.e.config.Warm + 1; ; left-- {
		berth, err := b.e.acquire(ctx)
		if err != nil {
			return nil, err
		}
		if err = b.begin(berth); err == nil {
			return b.sandbox(berth), nil
		}
		b.e.discard(berth)
		if left == 0 {
			return nil, fmt.Errorf("start task: %w", err)
		}
		b.e.log.WarnContext(ctx, "a supervisor has ended before it had a task", slog.Any("error", err))
	}
}

// begin has the supervisor of a berth start the task.
func (b *builder) begin(berth *berth) error {
	return berth.request(supervisor.Request{Start: &supervisor.Start{
		Run:             supervisor.Run{Task: string(b.o.Run.Task), Run: b.o.Run.Run},
		Commands:        b.payload.Command,
		Env:             environment(berth, b.env),
		Groups:          b.groups,
		NoNewPrivileges: b.e.config.NoNewPrivileges,
	}})
}

// sandbox returns the sandbox of a task that has begun.
func (b *builder) sandbox(berth *berth) *sandbox {
	s := &sandbox{
		e: b.e, berth: berth, groups: b.groups,
		log: b.o.Log, commands: b.payload.Command, started: time.Now(), ended: make(chan struct{}),
	}
	b.e.background.Go(s.follow)
	return s
}

// environment returns the environment of a task in a berth.
func environment(b *berth, set map[string]string) []string {
	env := map[string]string{
		"HOME": b.workDir,
		"PATH": defaultPath,
		"USER": b.account.name,
	}
	maps.Copy(env, set)
	env[workDirVariable] = b.workDir
	env[engine.InterruptionVariable] = filepath.Join(b.told, interruptionName)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// Close implements engine.Builder.
func (b *builder) Close() error {
	b.closed = true
	return nil
}
