package docker_test

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// record is a task log to read, and to wait upon.
type record struct {
	mu      sync.Mutex
	text    []byte
	size    int64
	keep    bool
	changed chan struct{}
}

func newRecord() *record { return &record{keep: true, changed: make(chan struct{})} }

// Write implements io.Writer.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keep {
		r.text = append(r.text, p...)
	}
	r.size += int64(len(p))
	close(r.changed)
	r.changed = make(chan struct{})
	return len(p), nil
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}

// has waits until the log has a text.
func (r *record) has(ctx context.Context, tb testing.TB, text string) {
	tb.Helper()
	for {
		r.mu.Lock()
		found, changed := strings.Contains(string(r.text), text), r.changed
		r.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			tb.Fatalf("the log never has %q:\n%s", text, r)
		}
	}
}

// options returns those of a task with a payload.
func options(tb testing.TB, payload map[string]any, log *record) engine.Options {
	tb.Helper()
	if payload["image"] == nil {
		payload["image"] = dockertest.Image
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		tb.Fatal(err)
	}
	return engine.Options{
		Run: task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ"}, Payload: raw, Log: tasklog.New(log),
		Authorize: func(context.Context, ...task.Scopes) error { return nil },
	}
}

// shell is the payload of a task with one command.
func shell(script string) map[string]any {
	return map[string]any{"command": [][]string{{"sh", "-c", script}}}
}

// begin starts a task, which is aborted with the test.
func begin(tb testing.TB, e *docker.Engine, payload map[string]any, log *record) engine.Sandbox {
	tb.Helper()
	b, err := e.NewBuilder(tb.Context(), options(tb, payload, log))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := b.Start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Abort(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// finish waits for a task.
func finish(tb testing.TB, s engine.Sandbox) engine.ResultSet {
	tb.Helper()
	r, err := s.Wait(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// run runs a task to its end.
func run(tb testing.TB, e *docker.Engine, payload map[string]any) (engine.ResultSet, *record) {
	tb.Helper()
	log := newRecord()
	return finish(tb, begin(tb, e, payload, log)), log
}

func TestTasksThatMisbehave(t *testing.T) {
	const memory = 64 << 20
	e := open(t, docker.Config{Egress: docker.EgressNone, Limits: docker.Limits{MemoryBytes: memory, PIDs: 50}})
	binary := string([]byte{0, 1, 0xff, 0xfe, '\r', '\n', 0x80, 0})
	for _, tt := range []struct {
		title   string
		payload map[string]any
		want    engine.Result // but for what was used
		log     string
	}{
		{"eats memory", shell("x=a; while :; do x=$x$x; done"), engine.Result{ExitCode: -1, Signal: "killed", OOM: true}, "The OOM killer ended processes of the task: the task has a limit of 64 MiB"},
		{"forks without end", shell("f() { f & f & wait; }; sleep 2 & timer=$!; (f) 2>/dev/null & wait $timer; echo survived; exit 3"), engine.Result{ExitCode: 3}, "survived"},
		{"prints without a newline", shell("printf unfinished"), engine.Result{Success: true}, "unfinished\n[taskcluster"},
		{"prints binary", shell(`printf '\000\001\377\376\r\n\200\000'`), engine.Result{Success: true}, binary},
		{"closes its output and lives on", shell("exec >/dev/null 2>&1; exec 1>&- 2>&-; sleep 1; exit 5"), engine.Result{ExitCode: 5}, "Exit Code: 5"},
		{"has a process that is killed", shell("sh -c 'kill -9 $$'; exit $?"), engine.Result{ExitCode: 137}, "Exit Code: 137"},
		{"leaves processes with its output", shell("sleep 1000 & echo left"), engine.Result{Success: true}, "left"},
		{"signals the first process", shell("trap 'echo he''ard; exit 5' USR1; kill -USR1 1; while :; do sleep 0.05; done"), engine.Result{ExitCode: 5}, "heard\n"},
		{"has no such command", map[string]any{"command": [][]string{{"no-such-program"}}}, engine.Result{ExitCode: 127}, "cannot be executed"},
		{"has no such user", map[string]any{"command": [][]string{{"true"}}, "user": "nobody-knows"}, engine.Result{ExitCode: 126}, "nobody-knows"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			r, log := run(t, e, tt.payload)
			got := r.Result()
			if got.Wall <= 0 {
				t.Errorf("it took %v", got.Wall)
			}
			got.User, got.Kernel, got.Wall, got.PeakMemory = 0, 0, 0, 0
			if tt.title == "has no such user" {
				got.ExitCode = tt.want.ExitCode // the daemon does not say
			}
			if got != tt.want || !strings.Contains(log.String(), tt.log) {
				t.Errorf("result %+v, want %+v; log, which should have %q:\n%s", got, tt.want, tt.log, log)
			}
		})
	}
}

// A task can write to its transcript. What it spoils is its own result: that is
// no error of the worker, which gives up after some.
func TestTaskThatSpoilsItsTranscriptFails(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	for _, tt := range []struct{ title, script string }{
		{"it truncates it and writes on", ": > /.taskcluster/transcript; yes | head -c 8192 > /.taskcluster/transcript; exec sleep 1"},
		{"it writes nonsense in it", "yes | head -c 65536 > /.taskcluster/transcript; exec sleep 1"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			r, log := run(t, e, shell(tt.script))
			if got := r.Result(); got.Success || !strings.Contains(log.String(), "written to /.taskcluster/transcript") {
				t.Errorf("result %+v; log:\n%s", got, log)
			}
		})
	}
}

func TestTaskThatFillsTheDiskFailsAlone(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	log := newRecord()
	s := begin(t, e, shell("head -c 2147483648 /dev/zero > /fill"), log)
	r := finish(t, s)
	if r.Result().Success || !strings.Contains(log.String(), "head: ") {
		t.Errorf("result %+v:\n%s", r.Result(), log)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// The next task waits for room.
	if r, log := run(t, e, shell("head -c 104857600 /dev/zero > /fill")); !r.Result().Success {
		t.Errorf("the next task has the result %+v:\n%s", r.Result(), log)
	}
}

// The storage driver of the test's daemon limits nothing.
func TestLimitThatTheDaemonCannotKeepIsNoFaultOfTasks(t *testing.T) {
	c := docker.Config{Host: daemon.Host(), Instance: "limits", Egress: docker.EgressNone, Limits: docker.Limits{DiskBytes: 1 << 30}}
	_, _, err := docker.New(t.Context(), c, newLocalImages, testLog(t))
	if err == nil || !strings.Contains(err.Error(), "limits.disk cannot be had of the daemon") {
		t.Errorf("got %v", err)
	}
	if left := leftovers(t, c.Instance); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTaskThatIgnoresSignalsIsKilled(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Grace: 1})
	log := newRecord()
	s := begin(t, e, shell("trap '' TERM INT HUP; echo rea''dy; while :; do sleep 1; done"), log)
	log.has(t.Context(), t, "ready")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, s).Result(); !got.Killed || got.Success {
		t.Errorf("result %+v", got)
	}
}

// It does not fit on the daemon's disk, which it need not, and its own is freed
// as the log gets it.
func TestOutputOfAnyLength(t *testing.T) {
	const size = 1 << 30
	if size < dockertest.DiskSize {
		t.Fatal("the output fits on the daemon's disk")
	}
	c := docker.Config{Egress: docker.EgressNone, Dir: t.TempDir()}
	e := open(t, c)
	log := newRecord()
	log.keep = false
	s := begin(t, e, shell("head -c 1073741824 /dev/zero; echo"), log)
	if got := finish(t, s).Result(); !got.Success {
		t.Errorf("result %+v", got)
	}
	if log.size < size {
		t.Errorf("the log has %d of %d bytes", log.size, size)
	}
	if used := blocks(t, filepath.Join(c.Dir, "transcripts")); used > size/32 {
		t.Errorf("output that is in the log still takes %d bytes of disk", used)
	}
}

// There is no room on the daemon's disk for it twice.
func TestFileAsLargeAsTheDiskIsRead(t *testing.T) {
	const size = 600 << 20
	e := open(t, docker.Config{Egress: docker.EgressNone})
	r, log := run(t, e, shell("head -c 629145600 /dev/zero > /large"))
	if !r.Result().Success {
		t.Fatalf("result %+v:\n%s", r.Result(), log)
	}
	f, err := r.FS().Open("large")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); n != size || err != nil {
		t.Errorf("read %d bytes of %d, %v", n, size, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestLimitsAreThoseOfTheConfiguration(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Limits: docker.Limits{
		MemoryBytes: 100 << 20, CPUs: 0.5, PIDs: 77, SharedMemoryBytes: 3 << 20, OpenFiles: 333,
	}})
	_, log := run(t, e, shell("ulimit -n; df -k /dev/shm | tail -1; cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us || cat memory.max pids.max cpu.max"))
	for _, want := range []string{"\n333\n", " 3072 ", "\n104857600\n", "\n77\n", "\n50000"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in:\n%s", want, log)
		}
	}
}

// blocks returns how many bytes of disk the files in a directory take.
func blocks(tb testing.TB, dir string) (bytes int64) {
	tb.Helper()
	files, err := filepath.Glob(dir + "/*")
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		var st unix.Stat_t
		if err := unix.Stat(f, &st); err != nil {
			tb.Fatal(err)
		}
		bytes += st.Blocks * 512
	}
	return bytes
}

func TestPayloadSaysHowCommandsRun(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	many := func(p map[string]any) map[string]any {
		p["command"] = [][]string{{"true"}, {"sh", "-c", "id -un; pwd; echo $TASK_WORKDIR"}}
		return p
	}
	one := func(p map[string]any) map[string]any {
		p["command"] = [][]string{{"sh", "-c", "id -un; pwd; echo $TASK_WORKDIR"}}
		return p
	}
	for title, form := range map[string]func(map[string]any) map[string]any{"one command": one, "several": many} {
		t.Run(title, func(t *testing.T) {
			_, log := run(t, e, form(map[string]any{"user": "worker", "workdir": "/home"}))
			if !strings.Contains(log.String(), "worker\n/home\n/home\n") {
				t.Errorf("the log is:\n%s", log)
			}
			_, log = run(t, e, form(map[string]any{"entrypoint": []string{"env", "EXTRA=1"}}))
			if !strings.Contains(log.String(), "root\n/\n/\n") {
				t.Errorf("the log is:\n%s", log)
			}
			_, log = run(t, e, form(map[string]any{"tty": true}))
			if !strings.Contains(log.String(), "root\r\n/\r\n/\r\n") {
				t.Errorf("the log is:\n%q", log)
			}
		})
	}
}

func TestPtraceAndSeccompAreGranted(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Allow: docker.Allow{Ptrace: true, DisableSeccomp: true}})
	const status = "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status"
	_, log := run(t, e, shell(status))
	if text := log.String(); !strings.Contains(text, "Seccomp:\t2") || !strings.Contains(text, "NoNewPrivs:\t1") {
		t.Errorf("a common task:\n%s", text)
	}
	granted := shell(status)
	granted["capabilities"] = map[string]any{"ptrace": true, "disableSeccomp": true}
	_, log = run(t, e, granted)
	if text := log.String(); !strings.Contains(text, "Seccomp:\t0") {
		t.Errorf("a task without seccomp:\n%s", text)
	}
}

func TestFilesOfHostileTasks(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone})
	r, _ := run(t, e, shell(`mkdir -p /out/sub/deep; cd /out; ln -s loop loop; ln -s ../../../../etc/passwd up; ln -s /etc/passwd abs
ln -s nowhere dangling; mkfifo fifo; echo one > a; ln a hard; printf 'n\nl' > "$(printf 'new\nline')"; echo deep > sub/deep/file; head -c 100000 /dev/zero > big`))
	files := r.FS()
	for name, want := range map[string]string{
		"out/a": "one\n", "out/hard": "one\n", "out/sub/deep/file": "deep\n", "out/new\nline": "n\nl",
	} {
		if got, err := fs.ReadFile(files, name); string(got) != want || err != nil {
			t.Errorf("%q has %q, %v; want %q", name, got, err, want)
		}
	}
	// What links lead to is in the container, not on the host.
	for _, name := range []string{"out/up", "out/abs"} {
		if got, err := fs.ReadFile(files, name); err != nil || !strings.Contains(string(got), "worker:x:1000") {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"out/loop", "out/dangling", "out/fifo", "out/a/b", "proc/1/root/etc/passwd"} {
		if f, err := files.Open(name); err == nil {
			t.Errorf("%s can be opened", name)
			_ = f.Close()
		}
	}
	var walked []string
	err := fs.WalkDir(files, "out", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			walked = append(walked, name)
		}
		return err
	})
	if got, want := strings.Join(walked, " "), "out/a out/big out/hard out/new\nline out/sub/deep/file"; got != want || err != nil {
		t.Errorf("a walk finds %q, %v; want %q", got, err, want)
	}
	f, err := files.Open("out/big")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); n != 100000 || err != nil {
		t.Errorf("read %d bytes of 100000, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatAnEarlierWorkerLeftIsRemoved(t *testing.T) {
	// The first engine is never closed: its worker was killed.
	for title, again := range map[string]docker.Config{
		"by a worker that cannot go on with it":    {Dir: t.TempDir(), Egress: docker.EgressNone},
		"by a worker that does not want to either": {Egress: docker.EgressInternet},
	} {
		t.Run(title, func(t *testing.T) {
			c := config(t, daemon, docker.Config{Egress: docker.EgressInternet})
			e, shut, err := docker.New(t.Context(), c, newLocalImages, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			log := newRecord()
			o := options(t, shell("echo rea''dy; sleep 1000"), log)
			b, err := e.NewBuilder(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			s, err := b.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			log.has(t.Context(), t, "ready")
			if left := leftovers(t, c.Instance); len(left) < 2 {
				t.Fatalf("there is nothing to remove: %v", left)
			}
			again.Instance = c.Instance
			if again.Dir == "" {
				again.Dir = c.Dir
			}
			next := open(t, again)
			if err := next.Discard(t.Context(), o.Run); err != nil {
				t.Error(err)
			}
			if r, err := s.Wait(t.Context()); err == nil && r.Result().Success {
				t.Error("a task whose container was removed has succeeded")
			}
			if err := s.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			shut()
			run(t, next, shell("true"))
		})
	}
}

// The first process of the container needs threads of its own.
func TestLeastLimitOfProcesses(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressNone, Limits: docker.Limits{PIDs: 16}})
	for range 3 {
		r, log := run(t, e, shell("f() { f & f & wait; }; sleep 1 & timer=$!; (f) 2>/dev/null & wait $timer; echo survived; exit 3"))
		if got := r.Result(); got.ExitCode != 3 || !strings.Contains(log.String(), "survived") {
			t.Errorf("result %+v:\n%s", got, log)
		}
	}
}
