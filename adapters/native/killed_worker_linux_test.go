package native

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/logfile"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// workerVariable makes the test's binary a worker that uses the directory it
// names. It starts a task or goes on with the one it finds, says when that has
// ended, and leaves the result set open until it reads a line.
const workerVariable = "NATIVE_TEST_WORKER"

const countingMark = "native-counting-task"

// counting prints numbers until someone makes a file.
const counting = `: ` + countingMark + `; touch started; i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i; done; printf last`

func beWorker(dir string) int {
	if err := work(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func work(ctx context.Context, dir string) error {
	e, closeEngine, err := New(ctx, Config{Dir: filepath.Join(dir, "engine"), UserPrefix: "tasktest_"}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer closeEngine()
	logs, err := logfile.New(logfile.Config{Dir: filepath.Join(dir, "logs")}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	recording, s, err := takeUp(ctx, e, logs)
	if err != nil {
		return err
	}
	r, err := s.Wait(ctx)
	if err != nil {
		return err
	}
	if !r.Result().Success {
		return fmt.Errorf("the result is %+v", r.Result())
	}
	if _, err := io.WriteString(os.Stdout, "ended\n"); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	log, err := recording.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, log)
	return errors.Join(err, log.Close(), recording.Close(), r.Close())
}

// takeUp goes on with the task that an earlier worker has started, or starts it.
func takeUp(ctx context.Context, e *Engine, logs *logfile.Recorder) (tasklog.Recording, engine.Sandbox, error) {
	o := engine.Options{
		Run:     task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ"},
		Payload: []byte(`{"command": [["sh", "-c", "` + counting + `"]]}`),
	}
	runs, err := e.Orphans(ctx)
	if err != nil {
		return nil, nil, err
	}
	if slices.Contains(runs, o.Run) {
		recording, at, err := logs.Resume(o.Run)
		if err != nil {
			return nil, nil, err
		}
		o.Log = tasklog.New(recording)
		s, err := e.Reattach(ctx, o, at)
		return recording, s, err
	}
	recording, err := logs.Record(o.Run)
	if err != nil {
		return nil, nil, err
	}
	o.Log = tasklog.New(recording)
	b, err := e.NewBuilder(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.Start(ctx)
	return recording, s, err
}

// startWorker starts a worker in a process of its own.
func startWorker(t *testing.T, dir string) (worker *exec.Cmd, in io.Writer, out *bufio.Reader) {
	t.Helper()
	worker = exec.CommandContext(t.Context(), "/proc/self/exe")
	worker.Env = []string{workerVariable + "=" + dir, "PATH=" + defaultPath}
	worker.Stderr = t.Output()
	in, err := worker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	return worker, in, bufio.NewReader(stdout)
}

func killWorker(t *testing.T, worker *exec.Cmd) {
	t.Helper()
	if err := worker.Process.Kill(); err != nil {
		t.Errorf("the worker has ended by itself: %v", err)
	}
	var exit *exec.ExitError
	if err := worker.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Errorf("the worker has ended with %v", err)
	}
}

// awaitTrue waits until something is so.
func awaitTrue(t *testing.T, what string, isSo func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !isSo() {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatalf("it is never so that %s", what)
		}
	}
}

// TestLogIsExactHoweverOftenTheWorkerIsKilled kills workers at random moments,
// from their start to the end of the task and after.
func TestLogIsExactHoweverOftenTheWorkerIsKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	sandboxes := filepath.Join(dir, "engine", sandboxesName)
	kill := func(times int, most time.Duration) {
		for range times {
			worker, _, _ := startWorker(t, dir)
			<-time.After(time.Duration(random.Int64N(int64(most))))
			killWorker(t, worker)
		}
	}
	kill(25, 150*time.Millisecond)
	// On a machine that is busy, none may have got as far as to start the task.
	starting, _, _ := startWorker(t, dir)
	var started []string
	awaitTrue(t, "the task starts", func() bool {
		var err error
		if started, err = filepath.Glob(filepath.Join(sandboxes, "*", workName, "started")); err != nil {
			t.Fatal(err)
		}
		return len(started) > 0
	})
	killWorker(t, starting)
	if len(started) != 1 {
		t.Fatalf("the tasks %v were started", started)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(started[0]), "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill(5, 300*time.Millisecond)
	for range 2 { // with nothing left to do but to tell the result
		worker, _, out := startWorker(t, dir)
		if line, err := out.ReadString('\n'); err != nil || line != "ended\n" {
			t.Errorf("the worker says %q, %v", line, err)
		}
		killWorker(t, worker)
	}
	worker, in, out := startWorker(t, dir)
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(out)
	if err := errors.Join(err, worker.Wait()); err != nil {
		t.Fatal(err)
	}
	checkCount(t, log)
	for _, dir := range []string{sandboxes, filepath.Join(dir, "logs")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	if left := processes(t, countingMark); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// checkCount checks the log of the task that counts.
func checkCount(t *testing.T, log []byte) {
	t.Helper()
	lines := strings.Split(string(bytes.TrimPrefix(log, []byte("ended\n"))), "\n")
	if len(lines) < 1000 || !strings.Contains(lines[0], "Executing command 0") {
		t.Fatalf("the log of %d lines begins with %q", len(lines), lines[0])
	}
	end := slices.Index(lines, "last")
	if end < 0 || !strings.Contains(lines[end+1], "Exit Code: 0") || len(lines)-end > 10 {
		t.Fatalf("the log does not end with the end, but %q", lines[max(0, len(lines)-10):])
	}
	for i, line := range lines[1:end] {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("after %q, line %d of the task is %q", lines[i], i+1, line)
		}
	}
	t.Logf("the task has printed %d lines", end-1)
}

func TestTaskOfKilledWorkerCanBeDiscarded(t *testing.T) {
	dir := t.TempDir()
	worker, _, _ := startWorker(t, dir)
	awaitTrue(t, "the task starts", func() bool { return len(processes(t, countingMark)) > 0 })
	killWorker(t, worker)
	if len(processes(t, countingMark)) == 0 {
		t.Error("the task has ended with the worker")
	}
	// The next worker can use the directory at once.
	e := open(t, Config{Dir: filepath.Join(dir, "engine")})
	if r, log := run(t, e, "true"); !r.Result().Success {
		t.Errorf("the next worker cannot run tasks:\n%s", log)
	}
	runs, err := e.Orphans(t.Context())
	if err != nil || len(runs) != 1 {
		t.Fatalf("the orphans are %v, %v", runs, err)
	}
	if err := e.Discard(t.Context(), runs[0]); err != nil {
		t.Error(err)
	}
	if left := processes(t, countingMark); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	_, err = e.Reattach(t.Context(), engine.Options{Run: runs[0]}, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reattach of what was discarded returned %v", err)
	}
}
