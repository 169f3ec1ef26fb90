package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/clock"
)

// capacity is how many tasks the worker runs at once.
const capacity = 8

// service is the worker under the eyes of a service manager, which starts it
// again whenever it ends.
type service struct {
	program string
	config  string // file
	dir     string
	clock   string // file with how far its clock is ahead; empty if that is fixed
	history *history

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	pause  time.Duration // before the next start, after an end that was asked for
	asked  bool          // the end was asked for
	last   bool          // nothing is started any more
	begun  chan struct{} // closed when there is a next process
	done   chan struct{} // closed when nothing is started any more
	logged int64         // where the log of cmd begins
}

// restartPause is how long a service manager waits after a worker has exited.
const restartPause = 500 * time.Millisecond

// stopPatience is how long a worker may take to stop.
const stopPatience = time.Minute

// newService writes the configuration of a worker for a queue.
func newService(o options, dir, rootURL, dockerHost string, h *history) (*service, error) {
	config := map[string]any{
		"rootURL":     rootURL,
		"credentials": map[string]any{"clientID": "root", "accessToken": accessToken},
		"worker": map[string]any{
			"pool": pool, "group": "chaos", "id": "worker", "capacity": capacity, "pollInterval": "500ms",
		},
		"engine": o.engine,
		"native": map[string]any{"dir": filepath.Join(dir, "native")},
		"caches": map[string]any{"table": filepath.Join(dir, "caches.json")},
		"log":    map[string]any{"format": "text", "level": "info"},
	}
	if o.engine == "docker" {
		config["docker"] = map[string]any{"host": dockerHost, "instance": filepath.Base(filepath.Dir(dir)), "pull": "missing", "minFree": 0, "egress": "open"}
	}
	raw, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		return nil, err
	}
	s := &service{program: o.worker, config: filepath.Join(dir, "worker.yml"), dir: dir, history: h}
	return s, os.WriteFile(s.config, raw, 0o600)
}

// log is the file with what all processes of the worker have logged. It is not
// on the worker's disk.
func (s *service) log() string { return filepath.Join(s.dir, "..", "worker.log") }

// start begins to keep the worker running.
func (s *service) start() {
	s.done = make(chan struct{})
	s.last = false
	started := make(chan struct{})
	s.begun = started
	go s.keep()
	<-started
}

// keep keeps the worker running.
func (s *service) keep() {
	defer close(s.done)
	for {
		cmd, err := s.launch()
		if err != nil {
			s.history.note("worker cannot be started", "%v", err)
			s.mu.Lock()
			s.last = true
			close(s.begun)
			s.mu.Unlock()
			return
		}
		err = cmd.Wait()
		s.mu.Lock()
		close(s.exited)
		pause, asked, last := s.pause, s.asked, s.last
		s.pause, s.asked = 0, false
		s.mu.Unlock()
		if !asked {
			s.history.note("worker exits", "%v", err)
			pause = restartPause
		}
		if last {
			return
		}
		wait(context.Background(), pause)
	}
}

func (s *service) launch() (*exec.Cmd, error) {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	before, err := log.Stat()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), s.program, "start", "--config", s.config) //nolint:gosec // a program of this repository
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	if s.clock != "" {
		cmd.Env = append(cmd.Env, clock.Variable+"="+s.clock)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.cmd, s.exited, s.logged = cmd, make(chan struct{}), before.Size()
	close(s.begun)
	s.begun = make(chan struct{})
	return cmd, nil
}

// running locks s while a process runs, and returns the process.
func (s *service) running() *exec.Cmd {
	for {
		s.mu.Lock()
		begun := s.begun
		select {
		case <-s.exited:
			s.mu.Unlock()
			<-begun
		default:
			return s.cmd
		}
	}
}

// kill kills the process that runs now, and has the next one start after a
// pause.
func (s *service) kill(pause time.Duration) {
	cmd := s.running()
	defer s.mu.Unlock()
	s.asked, s.pause = true, pause
	_ = cmd.Process.Kill() // fails if it has exited just now
}

// upgrade has the process begin anew, with all that it has.
func (s *service) upgrade() {
	process := s.running().Process
	s.mu.Unlock()
	_ = process.Signal(syscall.SIGHUP) // fails if it has exited just now
}

// freeze stops the process for a while, without its noticing.
func (s *service) freeze(ctx context.Context, d time.Duration) {
	process := s.running().Process
	s.mu.Unlock()
	_ = process.Signal(syscall.SIGSTOP) // fails if it has exited just now
	wait(ctx, d)
	_ = process.Signal(syscall.SIGCONT)
}

// settle waits until a process has begun to work, of those that begin one after
// another, or ctx is done. Before that, SIGUSR1 may be lost on it: Go ends no process by it.
func (s *service) settle(ctx context.Context) error {
	for ctx.Err() == nil {
		s.running()
		logged := s.logged
		s.mu.Unlock()
		if started, err := s.says(logged, `msg="worker started"`); started || err != nil {
			return err
		}
		wait(ctx, 20*time.Millisecond)
	}
	return nil
}

// stop asks the process to end, and waits for that. The next one starts after a
// pause, unless this is the last.
func (s *service) stop(signal syscall.Signal, pause time.Duration, last bool) error {
	cmd := s.running()
	exited, logged := s.exited, s.logged
	s.asked, s.pause, s.last = true, pause, last
	err := cmd.Process.Signal(signal)
	s.mu.Unlock()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err != nil {
		return err
	}
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
		_ = cmd.Process.Signal(syscall.SIGQUIT) // its goroutines are of interest
		<-exited
		return fmt.Errorf("the worker did not stop within %v of signal %v", stopPatience, signal)
	}
	if last {
		<-s.done
	}
	if cmd.ProcessState.ExitCode() == 0 {
		return nil
	}
	// Early in its life, a process does not heed signals yet, and may end since
	// the queue is out of reach.
	if joined, err := s.says(logged, `msg="worker started"`); err != nil || joined {
		return errors.Join(err, fmt.Errorf("the worker exits with %v after signal %v", cmd.ProcessState, signal))
	}
	return nil
}

// says reports whether the log says something after the first bytes.
func (s *service) says(after int64, what string) (bool, error) {
	log, err := os.ReadFile(s.log())
	return err == nil && bytes.Contains(log[min(after, int64(len(log))):], []byte(what)), err
}

// wait waits for d to pass or ctx to be done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
