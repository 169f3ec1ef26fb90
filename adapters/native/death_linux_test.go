package native

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

const (
	// workerVariable makes the test's binary a worker that uses the directory
	// it names, has started a task once it prints a line, and goes on until it
	// is killed.
	workerVariable = "NATIVE_TEST_WORKER"

	mourned = "native-worker-was-killed"
)

func beWorker(dir string) int {
	ctx := context.Background()
	e, closeEngine, err := New(ctx, Config{Dir: dir, UserPrefix: "tasktest_"}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer closeEngine()
	b, err := e.NewBuilder(ctx, engine.Options{
		Payload: []byte(`{"command": [["sh", "-c", "setsid sh -c 'sleep 1000000; :' ` + mourned + ` & echo ready; wait"]]}`),
		Log:     tasklog.New(os.Stdout),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := b.Start(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, _ = s.Wait(ctx) // until the worker is killed
	return 1
}

func TestNothingOutlivesKilledWorker(t *testing.T) {
	dir := t.TempDir()
	worker := exec.CommandContext(t.Context(), "/proc/self/exe")
	worker.Env = []string{workerVariable + "=" + dir, "PATH=" + defaultPath}
	worker.Stderr = t.Output()
	out, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	if len(processes(t, mourned)) == 0 {
		t.Error("the task does not run")
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait() // says that it was killed

	// The next worker can use the directory at once, and leaves it empty.
	e := open(t, Config{Dir: dir})
	if r, log := run(t, e, "true"); !r.Result().Success {
		t.Errorf("the next worker cannot run tasks:\n%s", log)
	}
	if left := processes(t, mourned); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestKillLeavesTimeToEnd(t *testing.T) {
	e := open(t, Config{Grace: time.Hour})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000000 & wait"}, []string{"echo", "later"})
	log.await(t, "ready\n")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := wait(t, s).Result()
	if r.Success || !r.Killed || r.ExitCode != 0 {
		t.Errorf("the result is %+v", r)
	}
	if !strings.Contains(log.String(), "bye\n") || strings.Contains(log.String(), "later\n") {
		t.Errorf("the log is:\n%s", log)
	}
}
