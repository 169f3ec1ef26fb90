// Package peertest runs programs that were written for Taskcluster, and know
// nothing of this repository, against the development queue: what they need of
// a deployment must be there.
package peertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/slugid-go/slugid"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

const (
	taskQueue = "test/peers"
	// patience bounds each run of a program, on a machine that does much else.
	patience = 2 * time.Minute
)

// peer returns the path of a program that `make peers` builds.
func peer(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.work above the test's directory")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, ".bin", "peers", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: run `make peers` (%v)", path, err)
	}
	return path
}

// deployment is a development queue and a directory for those who use it.
type deployment struct {
	*devqueue.Server
	dir string
}

func deploy(t *testing.T, cfg devqueue.Config) deployment {
	t.Helper()
	cfg.Dir = t.TempDir()
	server, shut, err := devqueue.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shut)
	return deployment{server, t.TempDir()}
}

// run runs a program and returns its output. Other exit codes than the wanted
// one are fatal.
func (d deployment) run(t *testing.T, want int, stdin, program string, args ...string) string {
	t.Helper()
	cmd := d.command(t, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && exit.ExitCode() != want {
		t.Fatalf("%s %q: %v\n%s\n%s", filepath.Base(program), args, err, out.String(), log.String())
	}
	return out.String()
}

// command returns a program that knows the deployment by its environment, as
// all of Taskcluster's do, and leaves no process behind.
func (d deployment) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = d.dir
	root := d.Credentials()
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "TASKCLUSTER_ROOT_URL=" + d.RootURL(), "TASKCLUSTER_CLIENT_ID=" + root.ClientID,
		"TASKCLUSTER_ACCESS_TOKEN=" + root.AccessToken, "TASKCLUSTER_CERTIFICATE=", "TASKCLUSTER_PROXY_URL=",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// start starts a program that is killed when the test ends, and returns how to
// wait for it.
func (d deployment) start(t *testing.T, program string, args ...string) (wait func() error) {
	t.Helper()
	cmd := d.command(t, program, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	done := make(chan struct{})
	t.Cleanup(func() {
		// The program's children outlive it unless they are killed too.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
		select {
		case <-done:
		case <-ended:
		}
	})
	return func() error {
		err := <-ended
		close(done)
		return err
	}
}

// write writes a file in the deployment's directory and returns its path.
func (d deployment) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// create creates a task with the command line client and returns its id.
func (d deployment) create(t *testing.T, payload map[string]any) string {
	t.Helper()
	id := slugid.Nice()
	now := time.Now().UTC()
	definition, err := json.Marshal(map[string]any{
		"taskQueueId": taskQueue, "created": now, "deadline": now.Add(time.Hour), "expires": now.Add(2 * time.Hour),
		"retries": 0, "payload": payload,
		"metadata": map[string]string{"name": "a task", "description": "for peers", "owner": "me@example.com", "source": "https://example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.run(t, 0, string(definition), peer(t, "taskcluster"), "api", "queue", "createTask", id)
	return id
}

// state returns the state of a task, as the command line client tells it.
func (d deployment) state(t *testing.T, id string) string {
	t.Helper()
	return strings.TrimSpace(d.run(t, 0, "", peer(t, "taskcluster"), "task", "status", id))
}

// reach waits until a task is in one of the states.
func (d deployment) reach(t *testing.T, id string, states ...string) string {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(patience)
	for {
		state := d.state(t, id)
		if slices.ContainsFunc(states, func(s string) bool { return strings.HasPrefix(state, s) }) {
			return state
		}
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("task %s is %s", id, state)
		}
	}
}

// freePorts returns the first of two ports in a row that are free.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			continue
		}
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no two ports in a row are free")
	return 0
}
