package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func isError(err, target error) bool { return errors.Is(err, target) }

func TestDirectoryIsOneWorkers(t *testing.T) {
	e := open(t, Config{})
	_, _, err := New(t.Context(), Config{Dir: e.config.Dir, UserPrefix: "tasktest_"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another worker is using the directory "+e.config.Dir) {
		t.Errorf("a second worker got %v", err)
	}
}

func TestDirectoryMustSuit(t *testing.T) {
	closed := filepath.Join("/srv", filepath.Base(t.TempDir())+"-native-test")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(closed) })
	for dir, want := range map[string]string{
		"":             "must be an absolute path",
		"relative":     "must be an absolute path",
		"/":            "must be an absolute path other than the root",
		closed + "/in": "cannot pass through " + closed,
	} {
		_, _, err := New(t.Context(), Config{Dir: dir}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with the directory %q, New returned %v, want %q", dir, err, want)
		}
	}
}

// TestSweepsWhatAKilledWorkerLeft has a process in place of a supervisor that
// was stopped, and so has outlived its worker.
func TestSweepsWhatAKilledWorkerLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, sandboxesName, "left")
	if err := os.MkdirAll(filepath.Join(left, workName, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	stuck := exec.CommandContext(t.Context(), "sleep", "1000000")
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := processStart(stuck.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(processRecord{PID: stuck.Process.Pid, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, processName), record, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Dir: dir}) // whose end checks that the directory is empty
	if err := stuck.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process that was left ended with %v", err)
	}
}

// What cannot be removed of one task keeps the worker from no other one.
func TestSweepGoesOnWithoutWhatCannotBeRemoved(t *testing.T) {
	dir := t.TempDir()
	stuck := filepath.Join(dir, sandboxesName, "stuck")
	if err := os.MkdirAll(filepath.Join(stuck, processName), 0o700); err != nil { // whose process is not known
		t.Fatal(err)
	}
	e := open(t, Config{Dir: dir})
	if r, log := run(t, e, "true"); !r.Result().Success {
		t.Errorf("the result is %+v:\n%s", r.Result(), log)
	}
	if _, err := os.Stat(stuck); err != nil {
		t.Errorf("what may be in use is removed: %v", err)
	}
	if err := os.RemoveAll(stuck); err != nil {
		t.Error(err)
	}
}

func TestSweepSparesOtherProcesses(t *testing.T) {
	name := filepath.Join(t.TempDir(), processName)
	for _, record := range []string{`{`, `{"PID": 1, "Start": "1"}`, `{"PID": -1}`, `{"PID": ` + itoa(os.Getpid()) + `, "Start": "1"}`} {
		if err := os.WriteFile(name, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := killRecorded(name); err != nil {
			t.Errorf("%s: %v", record, err)
		}
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// A worker that makes way does not wait for the stages of runs.
func TestStartDoesNotOutwaitTheEngine(t *testing.T) {
	e := open(t, Config{})
	b, err := e.NewBuilder(t.Context(), engine.Options{Payload: payloadOf(t, []string{"true"}), Log: tasklog.New(&safeBuffer{})})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := b.Start(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start returned %v", err)
	}
}

// The host's OOM killer, say, may end supervisors that wait for a task.
func TestTaskStartsThoughIdleSupervisorsHaveEnded(t *testing.T) {
	e := open(t, Config{Warm: 1})
	records, err := filepath.Glob(filepath.Join(e.places.dir, "*", processName))
	if err != nil || len(records) < 2 {
		t.Fatalf("found %v, %v", records, err)
	}
	for _, name := range records {
		if err := killRecorded(name); err != nil {
			t.Fatal(err)
		}
	}
	if r, log := run(t, e, "echo begun"); !r.Result().Success || !strings.Contains(log, "begun\n") {
		t.Errorf("the result is %+v:\n%s", r.Result(), log)
	}
}

func TestTaskEndsWithItsSupervisor(t *testing.T) {
	e := open(t, Config{})
	log := &safeBuffer{}
	const mark = "native-ends-with-supervisor"
	s := start(t, e, log, []string{"sh", "-c", "echo ready; setsid sh -c 'sleep 1000000; :' " + mark}).(*sandbox)
	log.await(t, "ready\n")
	if err := s.berth.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Wait(t.Context())
	if f := fault.Classify(err); f == nil || f.Kind != fault.Shutdown || !strings.Contains(f.Message, "supervisor") {
		t.Errorf("Wait returned %v", err)
	}
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestOutputOfAnySizePasses(t *testing.T) {
	e := open(t, Config{})
	const size = 64 << 20
	b := &counter{}
	build, err := e.NewBuilder(t.Context(), optionsWith(t, b, []string{"head", "-c", itoa(size), "/dev/zero"}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := build.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := wait(t, s); !r.Result().Success || b.zeros != size {
		t.Errorf("%d bytes of %d have passed: %+v", b.zeros, size, r.Result())
	}
}

// counter is a log that counts zero bytes.
type counter struct{ zeros int }

func (c *counter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b == 0 {
			c.zeros++
		}
	}
	return len(p), nil
}

// TestReaderThatStallsDoesNotBlockTheTask has the log stall until the task has
// written more than any pipe holds, and told of it.
func TestReaderThatStallsDoesNotBlockTheTask(t *testing.T) {
	e := open(t, Config{})
	release := make(chan struct{})
	build, err := e.NewBuilder(t.Context(), optionsWith(t, stalled{release},
		[]string{"sh", "-c", "head -c 8388608 /dev/zero; touch done; " + forever}))
	if err != nil {
		t.Fatal(err)
	}
	sb, err := build.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := sb.(*sandbox)
	done := filepath.Join(s.berth.dir, workName, "done")
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stat(done); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("the task did not get on")
		}
	}
	close(release)
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

type stalled struct{ until <-chan struct{} }

func (s stalled) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func TestMalformedPayloads(t *testing.T) {
	e := open(t, Config{})
	for _, p := range []string{
		``, `{}`, `{"command": []}`, `{"command": [[]]}`, `{"command": [[""]]}`, `{"command": ["true"]}`,
		`{"command": [["true", "a\u0000b"]]}`, `{"command": [["true"]], "unknown": 1}`,
		`{"command": [["true", "` + strings.Repeat("x", maxString) + `"]]}`,
	} {
		o := optionsWith(t, io.Discard, []string{"true"})
		o.Payload = []byte(p)
		if _, err := e.NewBuilder(t.Context(), o); err == nil || fault.Classify(err).Kind != fault.Malformed {
			t.Errorf("payload %.60s: %v", p, err)
		}
	}
}

// TestDeepDirectoriesAreRemoved has a task nest directories deeper than there
// are descriptors.
func TestDeepDirectoriesAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "work")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range 3000 {
		if err != nil {
			t.Fatal(err)
		}
		below := -1
		if err = unix.Mkdirat(at, "d", 0o500); err == nil {
			below, err = unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		_ = unix.Close(at)
		at = below
	}
	if err := errors.Join(err, unix.Close(at)); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(filepath.Dir(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// TestRemovalIsResumed has a removal find what one that was broken off has moved
// to the top, and is deep itself.
func TestRemovalIsResumed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	at := filepath.Join(dir, "deep-1")
	for range 2 * maxDepth {
		at = filepath.Join(at, "d")
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func FuzzParsePayload(f *testing.F) {
	f.Add([]byte(`{"command": [["true"]], "osGroups": ["games"]}`))
	f.Add([]byte(`{"command": [[""]]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePayload(raw)
		if err != nil {
			if fault.Classify(err).Kind != fault.Malformed {
				t.Errorf("refused with %v", err)
			}
			return
		}
		for _, argv := range p.Command {
			if len(argv) == 0 || argv[0] == "" || strings.Contains(strings.Join(argv, ""), "\x00") {
				t.Errorf("accepted the command %q", argv)
			}
		}
	})
}

func TestLostOutputIsNamed(t *testing.T) {
	e := open(t, Config{})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"true"}).(*sandbox)
	wait(t, s)
	late := &safeBuffer{}
	s.log = tasklog.New(late)
	s.finish(&supervisor.Done{Dropped: 7, Cause: "no space left on device"})
	if want := "7 bytes of output are missing here: they could not be stored (no space left on device)"; !strings.Contains(late.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, late)
	}
}

// smallDisk returns the directory of a disk of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=512k,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// Tasks that start while the disk is full do not fail for it: somebody may be
// making room.
func TestFullDiskIsWaitedFor(t *testing.T) {
	disk := smallDisk(t)
	log := &safeBuffer{}
	e := openWith(t, Config{Dir: filepath.Join(disk, "worker")}, slog.New(slog.NewTextHandler(log, nil)))
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	const tasks = 6 // more than there are sandboxes ready
	started := make(chan error, tasks)
	for range tasks {
		b, err := e.NewBuilder(t.Context(), engine.Options{Payload: payloadOf(t, []string{"/bin/true"}), Log: tasklog.New(&safeBuffer{})})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			s, err := b.Start(t.Context())
			if err == nil {
				// Later, as that makes room.
				t.Cleanup(func() { _ = s.Abort(context.WithoutCancel(t.Context())) })
			}
			started <- err
		}()
	}
	log.await(t, "sandbox not prepared")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range tasks {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
}

func TestFullDiskIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := fmt.Errorf("make directory: %w", unix.ENOSPC)
		var s shortage
		if s.passes(errors.New("another one")) {
			t.Error("an error that has nothing to do with it is waited for")
		}
		if !s.passes(full) {
			t.Error("it is not waited for at all")
		}
		<-time.After(roomPatience)
		if s.passes(full) {
			t.Error("it is waited for without an end")
		}
		s = shortage{}
		if !s.passes(full) {
			t.Error("it is not waited for the next time")
		}
	})
}

func TestFullDiskCostsOutputAndNotTheTask(t *testing.T) {
	disk := smallDisk(t)
	e := open(t, Config{Dir: filepath.Join(disk, "worker")})
	r, log := run(t, e, "echo first; head -c 4000000 /dev/zero; exit 0")
	if !r.Result().Success {
		t.Errorf("the result is %+v", r.Result())
	}
	for _, want := range []string{"first\n", "bytes of output are missing here: they could not be stored (no space left on device)"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log of %d bytes lacks %q", len(log), want)
		}
	}
}
