package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The workers, by the names of their programs.
const (
	ours          = "dc-linux-worker"
	oursInDocker  = "dc-linux-worker, docker"
	genericWorker = "generic-worker"
)

// grace is how long a worker has to stop.
const grace = 20 * time.Second

// process is a worker that was started.
type process struct {
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{} // Closed once the worker was reaped.
}

// start starts the worker of a scenario in a directory of its own. Interrupts
// from a terminal do not reach it: stop must be called.
func (b *bench) start(ctx context.Context, s scenario, taskQueue string) (_ *process, err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("worker-%d", b.count))
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // the users of tasks pass through
		return nil, err
	}
	program, args, err := b.configure(ctx, s, dir, taskQueue)
	if err != nil {
		return nil, fmt.Errorf("configure worker: %w", err)
	}
	p := &process{exited: make(chan struct{})}
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil { //nolint:gosec // in our own directory
		return nil, err
	}
	// It is stopped by stop alone, so that it has time for its last words.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, args...) //nolint:gosec // a program of this repository
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p.log, p.log
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start worker: %w", err), p.log.Close())
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // We end it ourselves: how it exits tells nothing.
	}()
	return p, nil
}

// stop ends the worker and all that it started. It returns the end of the
// worker's log if that is wanted.
func (p *process) stop(explain bool) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // Fails if the worker has exited.
	select {
	case <-p.exited:
	case <-time.After(grace):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // Fails if nothing is left.
	<-p.exited
	err := p.log.Close()
	if !explain {
		return err
	}
	log, readErr := os.ReadFile(p.log.Name())
	return errors.Join(err, readErr, fmt.Errorf("the worker's log ends with:\n%s", log[max(0, len(log)-2000):]))
}

// configure writes the worker's configuration and returns its command line.
func (b *bench) configure(ctx context.Context, s scenario, dir, taskQueue string) (program string, args []string, err error) {
	file := filepath.Join(dir, "config.yml")
	root := b.server.Credentials()
	var config map[string]any
	switch s.worker {
	case ours, oursInDocker:
		if program, err = filepath.Abs(filepath.Join(".bin", ours)); err != nil {
			return "", nil, err
		}
		args = []string{"start", "--config", file}
		config = map[string]any{
			"rootURL":     b.server.RootURL(),
			"credentials": map[string]any{"clientID": root.ClientID, "accessToken": root.AccessToken},
			"worker":      map[string]any{"pool": taskQueue, "group": "here", "id": ours, "capacity": s.capacity, "maxTaskRunTime": "1h"},
			"engine":      "native",
			"native":      map[string]any{"dir": filepath.Join(dir, "native")},
			"caches":      map[string]any{"table": filepath.Join(dir, "caches.json")},
		}
		if s.worker == oursInDocker {
			config["engine"] = "docker"
			config["docker"] = map[string]any{
				"host": b.daemon.Host(), "instance": dir, "pull": "missing", "minFree": 0,
				"limits": map[string]any{"memory": "256MiB", "cpu": 1},
			}
		}
	case genericWorker:
		peers, err := filepath.Abs(filepath.Join(".bin", "peers"))
		if err != nil {
			return "", nil, err
		}
		program, args = filepath.Join(peers, genericWorker), []string{"run", "--config", file}
		key := filepath.Join(dir, "ed25519.key")
		if out, err := exec.CommandContext(ctx, program, "new-ed25519-keypair", "--file", key).CombinedOutput(); err != nil { //nolint:gosec // a program of this repository
			return "", nil, fmt.Errorf("make key: %w: %s", err, out)
		}
		ports, err := freePorts(ctx)
		if err != nil {
			return "", nil, err
		}
		tasks := filepath.Join(dir, "tasks")
		if err := os.Mkdir(tasks, 0o700); err != nil {
			return "", nil, err
		}
		provisioner, workerType, _ := strings.Cut(taskQueue, "/")
		config = map[string]any{
			"rootURL": b.server.RootURL(), "clientId": root.ClientID, "accessToken": root.AccessToken,
			"provisionerId": provisioner, "workerType": workerType, "workerGroup": "here", "workerId": genericWorker,
			"cachesDir": filepath.Join(dir, "caches"), "downloadsDir": filepath.Join(dir, "downloads"), "tasksDir": tasks,
			"ed25519SigningKeyLocation": key, "livelogExecutable": filepath.Join(peers, "livelog"), "livelogPortBase": ports,
			"numberOfTasksToRun": s.tasks, "idleTimeoutSecs": 60, "requiredDiskSpaceMegabytes": 1, "sentryProject": "",
			"shutdownMachineOnInternalError": false, "shutdownMachineOnIdle": false, "disableReboots": true,
			"cleanUpTaskDirs": true, "publicIP": "127.0.0.1",
		}
	}
	raw, err := json.Marshal(config) // JSON is YAML.
	if err != nil {
		return "", nil, err
	}
	return program, args, os.WriteFile(file, raw, 0o600)
}

// freePorts returns the first of two ports in a row that are free.
func freePorts(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	for range 100 {
		first, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err := first.Close(); err != nil {
			return 0, err
		}
		if err != nil {
			continue
		}
		return port, second.Close()
	}
	return 0, errors.New("no two ports in a row are free")
}
