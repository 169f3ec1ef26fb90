package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// task is the task that the supervisor is for.
type task struct {
	setup    *Setup
	events   *history
	out      *output
	null     *os.File
	children *children
	spawns   chan spawn
	start    *Start    // nil until the task is started
	began    time.Time // when it was

	mu      sync.Mutex
	killed  bool // a Kill ended the task
	stopped bool // it was told to stop
	ended   bool // the task has ended by itself
}

// run executes the commands, and ends what they leave behind.
func (t *task) run(s *Start) {
	var done Done
	for i, argv := range s.Commands {
		if t.stopping() {
			break
		}
		t.out.sync()
		t.events.add(Event{Executing: &i})
		x := t.execute(i, argv, s)
		done.Commands = append(done.Commands, x)
		t.out.sync()
		t.events.add(Event{Executed: &x})
		if x.Failed != "" || x.ExitCode != 0 {
			break
		}
	}
	t.mu.Lock()
	t.ended = true
	done.Killed, done.Stopped = t.killed, t.stopped
	t.mu.Unlock()

	t.children.killAll()
	t.out.sync()
	done.Dropped, done.Cause = t.out.lost()
	t.events.add(Event{Done: &done})
}

// execute runs one command to its end.
func (t *task) execute(index int, argv []string, s *Start) Executed {
	x := Executed{Index: index, ExitCode: -1}
	begin := time.Now()
	path, err := lookPath(argv[0], s.Env, t.setup.WorkDir)
	if err != nil {
		x.Failed = err.Error()
		return x
	}
	result := make(chan started)
	t.spawns <- spawn{path: path, argv: argv, start: s, result: result}
	p := <-result
	if p.err != nil {
		x.Failed = fmt.Sprintf("%s: %v", path, p.err)
		return x
	}
	end := <-p.exit
	x.Wall = time.Since(begin)
	x.User = time.Duration(end.usage.Utime.Nano())
	x.Kernel = time.Duration(end.usage.Stime.Nano())
	x.MaxRSS = int64(end.usage.Maxrss) << 10 //nolint:unconvert // its size depends on the architecture
	if end.status.Exited() {
		x.ExitCode = end.status.ExitStatus()
	} else {
		x.Signal = end.status.Signal().String()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x.Killed = t.killed && x.ExitCode != 0
	return x
}

// kill ends the task as though it had failed, unless it has ended.
func (t *task) kill(grace time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.killed {
		return
	}
	t.killed = true
	t.children.close(errKilled)
	if grace <= 0 || t.stopped {
		t.children.signal(unix.SIGKILL)
		return
	}
	t.children.signal(unix.SIGTERM)
	time.AfterFunc(grace, func() { t.children.signal(unix.SIGKILL) })
}

// stop tells the command that is executed to end, and has no other follow.
func (t *task) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.killed || t.stopped {
		return
	}
	t.stopped = true
	t.children.close(errStopped)
	t.children.terminate()
}

// stopping reports whether no other command is to follow.
func (t *task) stopping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.killed || t.stopped
}

// spawn asks the spawner for a process.
type spawn struct {
	path   string
	argv   []string
	start  *Start
	result chan<- started
}

// started is what became of a spawn.
type started struct {
	exit <-chan exit
	err  error
}

// spawner starts processes from a thread of its own, whose cgroup, keyring and
// attributes they inherit, so that the supervisor itself is not subject to the
// limits of the task.
func (t *task) spawner(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// By this thread the kernel tells which group a process is in when
		// that group runs out of memory. Holding on to it here makes the next
		// goroutine get another one.
		go t.spawner(ready)
		select {}
	}
	group, err := t.enterCgroup()
	if err == nil {
		err = t.leaveKeys()
	}
	ready <- err
	if err != nil {
		return
	}
	for s := range t.spawns {
		done, err := t.children.start(func() (int, error) { return t.fork(s, group) })
		s.result <- started{done, err}
	}
}

// enterCgroup puts the calling thread in the task's cgroups of version 1, or
// returns the descriptor of that of version 2. Then it gives up what commands
// should not inherit.
func (t *task) enterCgroup() (group int, err error) {
	for i := range t.setup.Threads {
		if _, err := unix.Write(FirstCgroup+i, []byte("0")); err != nil {
			return -1, fmt.Errorf("enter cgroup: %w", err)
		}
		_ = unix.Close(FirstCgroup + i)
	}
	group = -1
	if t.setup.Group {
		group = FirstCgroup
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("drop capabilities: %w", err)
	}
	return group, nil
}

func (t *task) fork(s spawn, group int) (int, error) {
	if s.start.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	sys := &syscall.SysProcAttr{Setsid: true, UseCgroupFD: group >= 0, CgroupFD: group}
	if t.setup.Switch {
		sys.Credential = &syscall.Credential{Uid: t.setup.UID, Gid: t.setup.GID, Groups: s.start.Groups}
	}
	if !t.setup.Isolated {
		sys.Pdeathsig = syscall.SIGKILL
	}
	out := t.out.write.Fd()
	//nolint:gosec // this is what the supervisor is for
	return syscall.ForkExec(s.path, s.argv, &syscall.ProcAttr{
		Dir:   t.setup.WorkDir,
		Env:   s.start.Env,
		Files: []uintptr{t.null.Fd(), out, out},
		Sys:   sys,
	})
}
