package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

// berth is a place for one task: a user, a directory, a control group, and a
// supervisor in namespaces of its own that waits for its commands.
type berth struct {
	id      string
	dir     string // of the worker's own files about the task
	workDir string // task directory, as the task sees it
	told    string // directory with what the task is told, as it sees that
	account *account
	group   *cgroup.Group // nil without control groups

	isolated bool // nothing of the task can outlive the supervisor
	process  *os.Process
	exited   chan struct{} // closed once the supervisor was reaped
	conn     *os.File
	sending  sync.Mutex
	requests *json.Encoder
	events   *json.Decoder
	output   *os.File // what the task has written, for reading
	root     *os.File // root directory that the task sees
	mounts   *os.File // keeps the mount namespace; nil if it is the worker's
}

// The files and directories in a berth's directory.
const (
	workName    = "work"
	tellingName = "told"
	outputName  = "output"
	processName = "supervisor.json"
)

// replaced are the directories that tasks share on a host, and in place of
// which each task sees one of its own.
var replaced = map[string]string{"tmp": "/tmp", "var-tmp": "/var/tmp"} //nolint:gochecknoglobals // a constant

// inMemory are those in place of which each task sees one in memory, as hosts do.
var inMemory = []string{"/dev/shm", "/run/lock"} //nolint:gochecknoglobals // a constant

// prepare makes a berth. It takes what it needs from the engine's pools.
func (e *Engine) prepare(ctx context.Context) (_ *berth, err error) {
	a, err := e.users.take(ctx)
	if err != nil {
		return nil, err
	}
	place, err := e.places.take()
	if err != nil {
		e.users.give(a)
		return nil, err
	}
	b := &berth{id: place, account: a, isolated: e.isolated, exited: make(chan struct{})}
	b.dir = filepath.Join(e.places.dir, b.id)
	b.workDir = filepath.Join(e.config.Dir, "tasks", a.name)
	b.told = filepath.Join(e.config.Dir, tellingName)
	if !e.isolated {
		b.workDir = filepath.Join(b.dir, workName)
		b.told = filepath.Join(b.dir, tellingName)
	}
	defer func() {
		if err != nil {
			vacated := e.vacate(context.WithoutCancel(ctx), b)
			if vacated == nil {
				vacated = e.places.give(b.id)
			}
			err = errors.Join(err, vacated)
		}
	}()
	if err := e.makeWork(b); err != nil {
		return nil, err
	}
	if e.cgroups != nil {
		if b.group, err = e.cgroups.New(b.id, cgroup.Limits{
			MemoryBytes: e.config.Limits.MemoryBytes,
			CPUs:        e.config.Limits.CPUs,
			PIDs:        e.config.Limits.PIDs,
		}); err != nil {
			return nil, fmt.Errorf("make control group: %w", err)
		}
	}
	if err := e.startSupervisor(b); err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	if err := b.openView(); err != nil {
		return nil, err
	}
	return b, nil
}

// openView opens what the task sees.
func (b *berth) openView() (err error) {
	if b.root, err = openPath(b.proc("root")); err != nil {
		return err
	}
	if b.isolated {
		b.mounts, err = os.Open(b.proc("ns/mnt"))
	}
	return err
}

// startSupervisor starts the supervisor and waits until it is ready.
func (e *Engine) startSupervisor(b *berth) (err error) {
	state, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	listener, err := listen(state)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	// Connecting succeeds at once, as the connection waits to be accepted.
	if err := b.connect(state); err != nil {
		return err
	}
	written, err := os.OpenFile(filepath.Join(b.dir, outputName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = written.Close() }()
	if b.output, err = os.Open(filepath.Join(b.dir, outputName)); err != nil {
		return err
	}
	setup := supervisor.Setup{
		Isolated: e.isolated,
		Hide:     e.config.Dir,
		WorkDir:  b.workDir,
		Work:     filepath.Join(b.dir, workName),
		Memory:   e.inMemory,
		Told:     b.told,
		Telling:  filepath.Join(b.dir, tellingName),
		Bytes:    e.config.Limits.SharedMemoryBytes,
		Switch:   e.users.current == nil,
		UID:      b.account.uid,
		GID:      b.account.gid,
		User:     b.account.name,

		OrphanTimeout: e.config.OrphanTimeout,
		Backlog:       e.config.Backlog,
	}
	for name, target := range e.replaced {
		setup.Mounts = append(setup.Mounts, supervisor.Bind{Source: filepath.Join(b.dir, name), Target: target})
	}
	files := []*os.File{nil, nil, nil, listener, written, state, e.program}
	if b.group != nil {
		entries, threads, err := b.group.Open()
		if err != nil {
			return fmt.Errorf("open control group: %w", err)
		}
		for _, f := range entries {
			defer func() { _ = f.Close() }()
		}
		files = append(files, entries...)
		if setup.Group = !threads; threads {
			setup.Threads = len(entries)
		}
	}
	if b.account.lease != nil {
		files = append(files, b.account.lease) // so that the user is taken while a supervisor lives
	}
	if b.process, err = os.StartProcess(descriptor(supervisor.ProgramFD), []string{supervisor.Name}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"}, // not the worker's, which has secrets
		Files: files,
		Sys:   e.namespaces(),
	}); err != nil {
		return err
	}
	go func() {
		_, _ = b.process.Wait() // how it ended is no news
		close(b.exited)
	}()
	if err := e.recordProcess(b); err != nil {
		return err
	}
	if err := b.request(supervisor.Request{Setup: &setup}); err != nil {
		return err
	}
	// A host on which this takes long is of no use to tasks.
	ready, err := b.next(time.Minute)
	if err == nil && !ready.Ready {
		err = errors.New(ready.Failed)
	}
	return err
}

// namespaces returns how a supervisor is started.
func (e *Engine) namespaces() *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true}
	if e.refuge != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, e.refuge.FD()
	}
	if !e.isolated {
		return sys
	}
	sys.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if e.users.current != nil {
		// The rights over the namespaces come with a user namespace, in which
		// the user stays who they are.
		uid, gid := int(e.users.current.uid), int(e.users.current.gid)
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_KILL, unix.CAP_DAC_OVERRIDE}
	}
	return sys
}

// proc returns the path of a file about the supervisor.
func (b *berth) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(b.process.Pid), name)
}

// end has the supervisor end with all processes of the task, without waiting
// for that.
func (b *berth) end() {
	if b.isolated {
		_ = b.process.Kill() // fails if it has ended
		return
	}
	// Only the supervisor knows which processes are the task's.
	if err := b.request(supervisor.Request{End: true}); err != nil {
		_ = b.process.Kill() // fails if it has ended
	}
}

// errGoesOn says that the kernel does not let go of a supervisor, or of a process
// of the task: a file system that it waits for is gone, say.
var errGoesOn = errors.New("a process of the task does not end")

func (b *berth) exitsWithin(patience time.Duration) bool {
	select {
	case <-b.exited:
		return true
	case <-time.After(patience):
		return false
	}
}

// vacate ends the supervisor, and with it all that is left of the task, and
// gives back what the berth is made of. It leaves the directory, and all else
// with it where it fails with errGoesOn: that is for the next worker to remove.
func (e *Engine) vacate(ctx context.Context, b *berth) error {
	if b.process != nil {
		b.end()
		if !b.exitsWithin(10 * time.Second) {
			_ = b.process.Kill() // fails if it has ended
			if !b.exitsWithin(time.Minute) {
				return errors.Join(errGoesOn, b.closeFiles()) // with the user
			}
		}
	}
	err := b.closeFiles()
	e.users.give(b.account)
	if b.group != nil {
		err = errors.Join(err, b.group.Remove(ctx))
	}
	return err
}

// closeFiles closes what the worker has open of a berth. A supervisor with a
// task goes on.
func (b *berth) closeFiles() error {
	var err error
	for _, f := range []*os.File{b.conn, b.output, b.root, b.mounts} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

func openPath(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
