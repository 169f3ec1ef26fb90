package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/taskfile"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// ownTemp has the worker put its temporary files into a directory that tasks'
// users can pass through, and checks at the end that it is empty.
func ownTemp(t *testing.T) (variable string) {
	t.Helper()
	dir, remove, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	return "TMPDIR=" + dir
}

// development is "dev" in a process of its own.
type development struct {
	*program
	queue  *client.Client
	env    map[string]string // what it says to set
	advice string            // script that it prints about creating a task
}

// startDev starts "dev", and reads what it prints.
func startDev(t *testing.T, environ []string, args ...string) *development {
	t.Helper()
	p := &program{cmd: exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"dev"}, args...)...), stderr: &said{}}
	p.cmd.Args[0] = "dc-linux-worker"
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	d := &development{program: p, env: map[string]string{}}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "An interrupt ends it all") {
		if command, ok := strings.CutPrefix(lines.Text(), "#   "); ok {
			d.advice += command + "\n"
		}
		if variable, ok := strings.CutPrefix(lines.Text(), "export "); ok {
			name, value, _ := strings.Cut(variable, "=")
			d.env[name] = value
		} else if !strings.HasPrefix(lines.Text(), "#") {
			t.Errorf("a shell cannot read: %s", lines.Text())
		}
	}
	queue, disconnect := client.New(d.env["TASKCLUSTER_ROOT_URL"], task.Credentials{
		ClientID: d.env["TASKCLUSTER_CLIENT_ID"], AccessToken: d.env["TASKCLUSTER_ACCESS_TOKEN"],
	})
	t.Cleanup(disconnect)
	d.queue = queue
	return d
}

// interrupt ends "dev" as its user would.
func (d *development) interrupt(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("worker exits with %v; its log:\n%s", err, d.stderr)
	}
}

// What "dev" prints is enough to create a task. It keeps its data, and ends when
// it is interrupted.
func TestDev(t *testing.T) {
	temp := ownTemp(t)
	data, remove, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	var id task.ID
	for _, round := range []string{"at first", "once more, with the data of the first time"} {
		t.Run(round, func(t *testing.T) {
			d := startDev(t, []string{temp}, "--data", data)
			queue := d.queue
			if id == "" {
				file, err := taskfile.Parse("t", []byte("command: [[/bin/true]]"), taskfile.Defaults{TaskQueueID: localPool, MaxRunTime: time.Minute, Now: time.Now()})
				if err != nil {
					t.Fatal(err)
				}
				id = client.NewTaskID()
				if err := queue.Create(t.Context(), id, file.Definition); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the task's completion", func() bool {
				status, err := queue.Status(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				return status.State == "completed"
			})
			followAdvice(t, d.advice, d.env)
			d.interrupt(t)
		})
	}
}

// followAdvice does literally what "dev" says about Taskcluster's CLI.
func followAdvice(t *testing.T, script string, env map[string]string) {
	t.Helper()
	peers, err := filepath.Abs("../../.bin/peers")
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
	shell.Env = []string{"PATH=" + peers + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for name, value := range env {
		shell.Env = append(shell.Env, name+"="+value)
	}
	out, err := shell.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nhello\n") {
		t.Errorf("the advice of dev fails: %v\n%s\nIt was:\n%s", err, out, script)
	}
}

// An interrupt ends a task that is run from a file, with all that belongs to it.
func TestInterruptRun(t *testing.T) {
	temp := ownTemp(t)
	file := filepath.Join(t.TempDir(), "task.yml")
	if err := os.WriteFile(file, []byte("command: [[/bin/sh, -c, 'setsid sleep 3603.5 & exec sleep 3603.5']]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		signal os.Signal
	}{
		{"SIGINT", os.Interrupt},
		{"SIGTERM", syscall.SIGTERM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "run", file, "--json")
			cmd.Args[0] = "dc-linux-worker"
			cmd.Env = append(os.Environ(), temp)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both processes of the task", func() bool { return len(processes(t, "3603.5")) == 2 })
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its code is looked at below
			if got := cmd.ProcessState.ExitCode(); got != exitException {
				t.Errorf("exit code is %d, want %d", got, exitException)
			}
			if want := `"state":"exception","reason":"worker-shutdown"`; !strings.Contains(stdout.String(), want) {
				t.Errorf("result is %q, want %q in it", stdout.String(), want)
			}
			if want := "worker shutdown: " + tt.name; !strings.Contains(stderr.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, stderr.String())
			}
			expectNoProcess(t, "3603.5")
		})
	}
}
