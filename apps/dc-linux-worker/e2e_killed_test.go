package main

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/taskfile"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// twice is a command of two processes with an argument, of which one has left
// the session of the other.
func twice(argument string) string {
	return "command: [[/bin/sh, -c, 'setsid sleep " + argument + " & exec sleep " + argument + "']]"
}

// holdings is what the processes with an argument have of the host.
type holdings struct {
	argument string
	groups   []string            // control groups that were made for them
	leases   map[string][]string // by the files of their users: who has them locked
}

// held returns what processes have.
func held(t *testing.T, argument string) holdings {
	t.Helper()
	h := holdings{argument: argument, leases: map[string][]string{}}
	for _, pid := range processes(t, argument) {
		s, err := os.Stat(filepath.Join("/proc", pid))
		if err != nil {
			t.Fatal(err)
		}
		u, err := user.LookupId(strconv.Itoa(int(s.Sys().(*syscall.Stat_t).Uid)))
		if err != nil {
			t.Fatal(err)
		}
		lease := filepath.Join("/run/taskcluster-worker/users", u.Username)
		if h.leases[lease] = lockers(t, lease); len(h.leases[lease]) == 0 {
			t.Fatalf("nobody has the user %s", u.Username)
		}
		groups, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(groups)) {
			_, group, ok := strings.Cut(line, "/taskcluster-worker-")
			tree, _, _ := strings.Cut(strings.TrimSpace(group), "/")
			if ok {
				h.groups = append(h.groups, "/sys/fs/cgroup/*/taskcluster-worker-"+tree+"*", "/sys/fs/cgroup/taskcluster-worker-"+tree+"*")
			}
		}
	}
	if len(h.groups) == 0 || len(h.leases) == 0 {
		t.Fatalf("the task has nothing: %+v", h)
	}
	return h
}

// isGone checks that nothing is left.
func (h holdings) isGone(t *testing.T) {
	t.Helper()
	expectNoProcess(t, h.argument)
	for _, pattern := range h.groups {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("control groups are left: %v, %v", left, err)
		}
	}
	for lease, before := range h.leases {
		// Other workers of this machine may have it by now.
		for _, pid := range lockers(t, lease) {
			if slices.Contains(before, pid) {
				t.Errorf("the user %s is not free, but still that of process %s", filepath.Base(lease), pid)
			}
		}
	}
}

// lockers returns the processes that have locked a file, or had when they ended,
// if others still have the lock from them.
func lockers(t *testing.T, file string) (pids []string) {
	t.Helper()
	s, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	inode := ":" + strconv.FormatUint(s.Sys().(*syscall.Stat_t).Ino, 10)
	for line := range strings.Lines(string(locks)) {
		// Such as: 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
		if f := strings.Fields(line); len(f) == 8 && f[1] == "FLOCK" && strings.HasSuffix(f[5], inode) {
			pids = append(pids, f[4])
		}
	}
	return pids
}

// kill kills a worker that has an heir, and waits for the end of both: the heir
// has the worker's standard error.
func (p *program) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed
}

// taskIn returns the name of a file with a task.
func taskIn(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "task.yml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// create creates a task on the queue of "dev".
func (d *development) create(t *testing.T, content string) task.ID {
	t.Helper()
	file, err := taskfile.Parse("t", []byte(content), taskfile.Defaults{TaskQueueID: localPool, MaxRunTime: time.Minute, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	id := client.NewTaskID()
	if err := d.queue.Create(t.Context(), id, file.Definition); err != nil {
		t.Fatal(err)
	}
	return id
}

// Nothing is left of a worker that was killed in the middle of a task, and that
// nobody succeeds.
func TestNothingIsLeftOfKilledRun(t *testing.T) {
	t.Run("run", func(t *testing.T) {
		temp := ownTemp(t)
		p := startProgramIn(t, []string{temp}, "run", taskIn(t, twice("3604.5")))
		eventually(t, "both processes of the task", func() bool { return len(processes(t, "3604.5")) == 2 })
		h := held(t, "3604.5")
		p.kill(t)
		h.isGone(t)
		noTemporaryFiles(t, temp)
	})
	t.Run("dev", func(t *testing.T) {
		temp := ownTemp(t)
		d := startDev(t, []string{temp})
		d.create(t, twice("3605.5"))
		eventually(t, "both processes of the task", func() bool { return len(processes(t, "3605.5")) == 2 })
		h := held(t, "3605.5")
		d.kill(t)
		h.isGone(t)
		noTemporaryFiles(t, temp)
	})
}

// A task ends with its worker even if the heir was killed, too. The next worker
// sees to the rest.
func TestNextRunMakesUpForKilledHeir(t *testing.T) {
	temp := ownTemp(t)
	p := startProgramIn(t, []string{temp}, "run", taskIn(t, twice("3606.5")))
	eventually(t, "both processes of the task", func() bool { return len(processes(t, "3606.5")) == 2 })
	h := held(t, "3606.5")
	left := estate(t, temp)
	heirs := processes(t, left)
	if len(heirs) != 1 {
		t.Fatalf("the worker has the heirs %v", heirs)
	}
	heir, err := strconv.Atoi(heirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(heir, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.kill(t)
	eventually(t, "the end of the task", func() bool { return len(processes(t, "3606.5")) == 0 })
	if _, err := os.Stat(left); err != nil {
		t.Errorf("somebody else has removed what was left: %v", err)
	}
	next := startProgramIn(t, []string{temp}, "run", taskIn(t, "command: [[/bin/true]]"))
	if err := next.cmd.Wait(); err != nil { // and for the heirs
		t.Errorf("the next worker exits with %v:\n%s", err, next.stderr)
	}
	h.isGone(t)
	noTemporaryFiles(t, temp)
}

// estate returns the directory of the only worker with a variable of ownTemp.
func estate(t *testing.T, temp string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(strings.TrimPrefix(temp, "TMPDIR="), "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the worker has the directories %v, %v", found, err)
	}
	return found[0]
}

// noTemporaryFiles checks that nothing is left where a variable of ownTemp leads.
func noTemporaryFiles(t *testing.T, temp string) {
	t.Helper()
	if left, err := os.ReadDir(strings.TrimPrefix(temp, "TMPDIR=")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// "dev" with a directory for its data goes on with a task in the middle of which
// it was killed. The log lacks and repeats nothing.
func TestKilledDevGoesOn(t *testing.T) {
	temp := ownTemp(t)
	data, remove, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	work := filepath.Join(data, "native", "sandboxes", "*", "work")
	printed := func(file string) bool {
		found, err := filepath.Glob(filepath.Join(work, file))
		return err == nil && len(found) == 1
	}
	first := startDev(t, []string{temp}, "--data", data)
	id := first.create(t, "retries: 0\npayload: {maxRunTime: 60, command: [[/bin/sh, -c, "+
		"'i=0; while [ ! -e stop ]; do echo line$i; i=$((i+1)); [ $i != 1000 ] || touch many; [ ! -e more ] || touch yet; done; echo of $i']]}")
	eventually(t, "much output", func() bool { return printed("many") })
	first.kill(t)
	second := startDev(t, []string{temp}, "--data", data)
	for _, file := range []string{"more", "stop"} {
		dirs, err := filepath.Glob(work)
		for _, dir := range dirs {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		if file == "more" {
			eventually(t, "output after the kill", func() bool { return printed("yet") })
		}
	}
	var status client.Status
	eventually(t, "a resolution", func() bool {
		var err error
		status, err = second.queue.Status(t.Context(), id)
		return err == nil && resolved(status.State)
	})
	if status.State != "completed" || len(status.Runs) != 1 {
		t.Errorf("task is %s after the runs %+v; the worker says:\n%s", status.State, status.Runs, second.stderr)
	}
	b := &bench{queue: second.queue}
	log, _ := b.artifact(t, task.RunID{Task: id}, "public/logs/live_backing.log")
	checkLines(t, log.content)
	second.interrupt(t)
	for _, pattern := range []string{filepath.Join(data, "native", "sandboxes", "*"), filepath.Join(data, "state", "*", "*")} {
		left, err := filepath.Glob(pattern)
		for _, path := range left {
			if filepath.Base(path) != "lock" {
				t.Errorf("%s is left", path)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// checkLines checks that a log has each line of a task once, up to as many as it
// says in the end.
func checkLines(t *testing.T, log string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if said, ok := strings.CutPrefix(line, "of "); ok {
			if said != strconv.Itoa(n) {
				t.Errorf("the task has printed %s lines, and the log has %d", said, n)
			}
			return
		}
		if strings.HasPrefix(line, "line") {
			if line != "line"+strconv.Itoa(n) {
				t.Fatalf("after line%d, the log has %s", n-1, line)
			}
			n++
		}
	}
	t.Errorf("the end of the task is not in its log, after %d lines", n)
}
