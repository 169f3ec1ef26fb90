package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// The times of the queue, which are short so that they pass often.
const (
	lease       = 8 * time.Second
	pollTimeout = 2 * time.Second
)

// accessToken is that of the queue's root client.
const accessToken = "chaos-needs-no-secrecy"

// queueVariable holds the configuration of the queue, in the process that is
// one.
const queueVariable = "CHAOS_QUEUE"

// queueConfig is what the queue's process has to know.
type queueConfig struct {
	Dir     string
	Listen  string
	RootURL string // as the worker sees it
}

func isQueue() bool { return os.Getenv(queueVariable) != "" }

// serveQueue is the life of the queue's process. It returns the exit code.
func serveQueue() int { //nolint:unparam // it does not return otherwise
	var c queueConfig
	if err := json.Unmarshal([]byte(os.Getenv(queueVariable)), &c); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: queue:", err)
		return 1
	}
	_, _, err := devqueue.Open(context.Background(), devqueue.Config{
		Dir: c.Dir, Listen: c.Listen, RootURL: c.RootURL, ClaimTimeout: lease, PollTimeout: pollTimeout,
		Clients: []devqueue.Client{{ClientID: devqueue.RootClient, AccessToken: accessToken, Scopes: []string{"*"}}},
	}, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos: queue:", err)
		return 1
	}
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return 1
	}
	select {} // until it is killed
}

// queue is a deployment in a process of its own.
type queue struct {
	config queueConfig
	cmd    *exec.Cmd
}

// start starts the process, and returns once it serves.
func (q *queue) start() error {
	config, err := json.Marshal(q.config)
	if err != nil {
		return err
	}
	q.cmd = exec.CommandContext(context.Background(), "/proc/self/exe") // until it is killed
	q.cmd.Env = append(os.Environ(), queueVariable+"="+string(config))
	q.cmd.Stderr = os.Stderr
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := q.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := q.cmd.Start(); err != nil {
		return fmt.Errorf("start queue: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
		return errors.Join(fmt.Errorf("start queue: %w", err), q.kill())
	}
	return nil
}

// kill ends the process without a warning.
func (q *queue) kill() error {
	if err := q.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = q.cmd.Wait() // it was killed
	return nil
}
