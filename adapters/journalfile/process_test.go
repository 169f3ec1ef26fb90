package journalfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// childDir is set for a process that is to write a journal until it is killed.
const childDir = "JOURNALFILE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// write writes records, and a line for each that is written, for ever.
func write(dir string) error {
	j, shut, err := Open(context.Background(), Config{Dir: dir}, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer shut()
	e := j.Begin(saved)
	for n := 0; ; n++ {
		if _, err := fmt.Println(n); err != nil { //nolint:forbidigo // the parent reads it
			return err
		}
		e.Add(journal.Held{Volume: strconv.Itoa(n), Cache: strings.Repeat("c", 4000)})
	}
}

// child starts a process that writes a journal in dir, and returns once it has
// written some of it.
func child(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 50 {
		if !lines.Scan() {
			t.Fatal("the process wrote too little")
		}
	}
	return cmd, lines
}

// kill kills the process and returns how many records it is sure to have written.
func kill(t *testing.T, cmd *exec.Cmd, lines *bufio.Scanner) int {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	n := 50
	for lines.Scan() {
		n++
	}
	_ = cmd.Wait() // it was killed
	return n - 1
}

func TestAKilledWorkersRecordsAreAllThere(t *testing.T) {
	d := newDisk(t)
	cmd, lines := child(t, d.dir)
	written := kill(t, cmd, lines)
	runs, err := d.open(t).Runs()
	if err != nil || len(runs) != 1 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	if got := len(runs[0].Volumes); got != written && got != written+1 {
		t.Errorf("%d records are left of %d", got, written)
	}
}

func TestOneWorkerAtATime(t *testing.T) {
	dir := t.TempDir()
	cmd, lines := child(t, dir)
	discard := slog.New(slog.DiscardHandler)

	_, _, err := Open(t.Context(), Config{Dir: dir}, telemetry.Off{}, discard)
	want := fmt.Sprintf("open journal: another worker uses the directory %s: process %d", dir, cmd.Process.Pid)
	if !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("opened with %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Open(ctx, Config{Dir: dir, Wait: time.Hour}, telemetry.Off{}, discard); !errors.Is(err, context.Canceled) {
		t.Errorf("opened with %v, want that it was canceled", err)
	}

	var said bytes.Buffer
	opened := make(chan error, 1)
	go func() {
		_, shut, err := Open(t.Context(), Config{Dir: dir, Wait: time.Minute}, telemetry.Off{}, slog.New(slog.NewTextHandler(&said, nil)))
		if err == nil {
			shut()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("opened while it is in use, with %v", err)
	case <-time.After(3 * poll):
	}
	kill(t, cmd, lines)
	if err := <-opened; err != nil {
		t.Error(err)
	}
	told := fmt.Sprintf("process=%d atMost=1m0s\n", cmd.Process.Pid)
	if got := said.String(); strings.Count(got, "waiting for the worker") != 1 || !strings.HasSuffix(got, told) {
		t.Errorf("while it waited it said %q, want one line that ends with %q", got, told)
	}
}

func TestWorkerIsAskedToMakeWay(t *testing.T) {
	dir := t.TempDir()
	cmd, lines := child(t, dir)
	discard := slog.New(slog.DiscardHandler)

	refused := errors.New("refused")
	cfg := Config{Dir: dir, Wait: time.Hour, Ask: func(int, string) error { return refused }}
	if _, _, err := Open(t.Context(), cfg, telemetry.Off{}, discard); !errors.Is(err, ErrInUse) || !errors.Is(err, refused) {
		t.Errorf("opened with %v, want that the other worker cannot be asked", err)
	}
	asked := 0
	cfg.Ask = func(pid int, lock string) error {
		asked++
		if _, err := os.Stat(lock); pid != cmd.Process.Pid || err != nil {
			t.Errorf("process %d was asked, by %s: %v", pid, lock, err)
		}
		time.AfterFunc(3*poll, func() { kill(t, cmd, lines) })
		return nil
	}
	_, shut, err := Open(t.Context(), cfg, telemetry.Off{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	shut()
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	// Where nobody is there, nobody is asked.
	if _, shut, err = Open(t.Context(), cfg, telemetry.Off{}, discard); err != nil {
		t.Fatal(err)
	}
	shut()
	if asked != 1 {
		t.Errorf("nobody was asked %d times", asked)
	}
}

// A worker that ends just when it is asked cannot be, and is not in the way.
func TestWorkerThatEndsWhenItIsAskedToMakeWay(t *testing.T) {
	dir, discard := t.TempDir(), slog.New(slog.DiscardHandler)
	_, end, err := Open(t.Context(), Config{Dir: dir}, telemetry.Off{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: dir, Wait: time.Hour, Ask: func(int, string) error {
		end()
		return os.ErrProcessDone
	}}
	_, shut, err := Open(t.Context(), cfg, telemetry.Off{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	shut()
}
