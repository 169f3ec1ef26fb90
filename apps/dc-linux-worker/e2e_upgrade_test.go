package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// upgrade is a worker with tasks that is upgraded.
type upgrade struct {
	b       *bench
	program string // path of the worker
	config  string
	pool    string
	tasks   []task.ID
}

// lines is how many lines a task of an upgrade prints.
const lines = 250

// prepareUpgrade installs a worker.
func prepareUpgrade(t *testing.T, configuration string) *upgrade {
	t.Helper()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	pool := "proj-test/upgrade"
	l, dir := testConfig(t, "worker: {pool: "+pool+", group: g, id: w, capacity: 8}\n"+configuration)
	if l.Native.Dir == "" {
		t.Fatal("there is no directory for tasks")
	}
	u := &upgrade{b: b, program: filepath.Join(dir, "dc-linux-worker"), config: filepath.Join(dir, "worker.yml"), pool: pool}
	u.write(t, configuration, dir)
	u.install(t)
	return u
}

// write writes the configuration, with all that the worker needs to start.
func (u *upgrade) write(t *testing.T, configuration, dir string) {
	t.Helper()
	content := "worker: {pool: " + u.pool + ", group: g, id: w, capacity: 8}\nnative: {dir: " + filepath.Join(dir, "tasks") + "}\n" +
		"caches: {table: " + filepath.Join(dir, "caches.json") + "}\n" + configuration
	if err := os.WriteFile(u.config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// install installs the worker, in place of the one that is there.
func (u *upgrade) install(t *testing.T) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(u.program+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to.Name(), u.program); err != nil {
		t.Fatal(err)
	}
}

func (u *upgrade) start(t *testing.T, args ...string) *program {
	t.Helper()
	return startProgramAt(t, u.program, u.b.environ(), append([]string{"start", "--config", u.config}, args...)...)
}

// load creates as many tasks as the worker runs at once, and waits until all of
// them print.
func (u *upgrade) load(t *testing.T, payload string) {
	t.Helper()
	mark := filepath.Base(filepath.Dir(u.program))
	for range 8 {
		u.tasks = append(u.tasks, u.b.create(t, "taskQueueId: "+u.pool+"\nretries: 0\npayload:\n  maxRunTime: 120\n"+payload+fmt.Sprintf(`
  command:
    - [/bin/sh, -c, 'i=0; while [ $i -lt %d ]; do echo line$i; head -c 2000 /dev/zero | tr "\000" x; echo; i=$((i+1)); sleep 0.02; done; echo result > result.txt', %s]
    - [/bin/echo, the last command]
  artifacts: [{type: file, name: public/result.txt, path: result.txt}]
`, lines, mark)))
	}
	// What is being prepared when the worker makes way may be given up.
	eventually(t, "all tasks to run", func() bool { return len(processes(t, mark)) >= len(u.tasks) })
}

// verify waits for all tasks, and checks that nothing is lost and nothing doubled.
func (u *upgrade) verify(t *testing.T) {
	t.Helper()
	for _, id := range u.tasks {
		deadline := time.Now().Add(3 * patience)
		status, err := u.b.queue.Status(t.Context(), id)
		for ; err == nil && !resolved(status.State) && time.Now().Before(deadline); status, err = u.b.queue.Status(t.Context(), id) {
			<-time.After(100 * time.Millisecond)
		}
		if err != nil || status.State != "completed" || len(status.Runs) != 1 {
			t.Errorf("task is %s after %d runs, %v", status.State, len(status.Runs), err)
			continue
		}
		if result, _ := u.b.artifact(t, task.RunID{Task: id}, "public/result.txt"); result.content != "result\n" {
			t.Errorf("the artifact is %q", result.content)
		}
		log, _ := u.b.artifact(t, task.RunID{Task: id}, "public/logs/live_backing.log")
		_, rest, _ := strings.Cut(log.content, "line0\n")
		for i := range lines {
			want := strings.Repeat("x", 2000) + "\nline" + strconv.Itoa(i+1) + "\n"
			if i == lines-1 {
				want = strings.Repeat("x", 2000) + "\n"
			}
			var ok bool
			if rest, ok = strings.CutPrefix(rest, want); !ok {
				t.Errorf("the log is not complete after line%d: %.100q", i, rest)
				break
			}
		}
		for _, once := range []string{"Executing command 1:", "\nthe last command\n", "=== Task Finished ==="} {
			if n := strings.Count(rest, once); n != 1 {
				t.Errorf("the log has %q %d times:\n%s", once, n, rest)
			}
		}
	}
}

// executes reports whether a process executes a file. In the moment of exec, it
// executes none.
func (p *program) executes(t *testing.T, file os.FileInfo) bool {
	t.Helper()
	stat, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.cmd.Process.Pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil && os.SameFile(stat, file)
}

// A new version is installed while eight tasks print, and SIGHUP has it take the
// place of the old one, twice. A configuration that is wrong does not.
func (u *upgrade) byReload(t *testing.T, payload, configuration string) {
	t.Helper()
	p := u.start(t)
	u.load(t, payload)
	dir := filepath.Dir(u.config)
	if err := os.WriteFile(u.config, []byte("worker: {capacity: none}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.reload(t, p)
	eventually(t, "the worker to stay", func() bool { return strings.Contains(p.stderr.String(), "the worker stays") })
	u.write(t, configuration, dir)
	for range 2 {
		u.install(t)
		next, err := os.Stat(u.program)
		if err != nil {
			t.Fatal(err)
		}
		begun := strings.Count(p.stderr.String(), "worker started")
		u.reload(t, p)
		eventually(t, "the next version to work", func() bool {
			return p.executes(t, next) && strings.Count(p.stderr.String(), "worker started") > begun
		})
	}
	u.verify(t)
	eventually(t, "the end of all supervisors", func() bool { return len(p.zombies(t)) == 0 })
	p.stop(t)
}

// zombies returns the processes that the worker has yet to take note of, since it
// is their parent though it has not started them.
func (p *program) zombies(t *testing.T) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[0] == "Z" && fields[1] == strconv.Itoa(p.cmd.Process.Pid) {
			found = append(found, file)
		}
	}
	return found
}

func (u *upgrade) reload(t *testing.T, p *program) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// Another process takes over from one that runs eight tasks.
func (u *upgrade) byTakeOver(t *testing.T, payload string) {
	t.Helper()
	first := u.start(t)
	u.load(t, payload)
	second := u.start(t, "--take-over")
	first.ended(t)
	u.verify(t)
	second.stop(t)
}

// stop stops the worker.
func (p *program) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.ended(t)
}

func TestUpgradeInPlace(t *testing.T) {
	t.Run("by SIGHUP", func(t *testing.T) { prepareUpgrade(t, "").byReload(t, "", "") })
	t.Run("by another process", func(t *testing.T) { prepareUpgrade(t, "").byTakeOver(t, "") })
}

func TestDrainingWorkerIsNotUpgraded(t *testing.T) {
	u := prepareUpgrade(t, "")
	p := u.start(t)
	id := u.b.create(t, "taskQueueId: "+u.pool+"\npayload: {maxRunTime: 60, command: [[/bin/sleep, '2.0625']]}")
	eventually(t, "the task's process", func() bool { return len(processes(t, "2.0625")) == 1 })
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker to drain", func() bool { return strings.Contains(p.stderr.String(), `"interruption"`) })
	u.reload(t, p)
	p.ended(t)
	if n := strings.Count(p.stderr.String(), "worker started"); n != 1 || !strings.Contains(p.stderr.String(), "does not make way") {
		t.Errorf("the worker has started %d times", n)
	}
	if status, err := u.b.queue.Status(t.Context(), id); err != nil || status.State != "completed" {
		t.Errorf("the task is %s, %v", status.State, err)
	}
}

func TestUpgradeInPlaceWithContainers(t *testing.T) {
	withDocker(t, func(t *testing.T) {
		t.Helper()
		configuration := "engine: docker\ndocker: {host: '" + daemon.Host() + "', pull: missing}\n"
		payload := "  image: " + dockertest.Image
		t.Run("by SIGHUP", func(t *testing.T) { prepareUpgrade(t, configuration).byReload(t, payload, configuration) })
		t.Run("by another process", func(t *testing.T) { prepareUpgrade(t, configuration).byTakeOver(t, payload) })
		expectNoContainer(t)
	})
}

func expectNoContainer(t *testing.T) {
	t.Helper()
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	left, err := c.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("left are the containers %v, %v", left.Items, err)
	}
}
