package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// machine is one that systemd runs, with the programs of this one, the worker,
// and nothing else. It ends when it is turned off.
type machine struct {
	cmd     *exec.Cmd
	console *lockedBuffer
}

// boot starts a machine with the worker of a deployment.
func (d *deployment) boot(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	if err := writeUnits(dir, command.Streams{Out: t.Output()}); err != nil {
		t.Fatal(err)
	}
	m := &machine{console: &lockedBuffer{}}
	args := []string{
		"--quiet", "--register=no", "--keep-unit", "--directory=/", "--volatile=yes", "--boot", "--console=read-only",
		"--machine=ec2-spot-worker",
	}
	bind := func(path, content string) {
		file := filepath.Join(dir, strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--bind-ro="+file+":"+path)
	}
	// What is in /usr is that of the real machine: the program is elsewhere.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const place = "/opt/ec2-spot-worker"
	args = append(args, "--bind-ro="+program+":"+place)
	for _, unit := range []string{"ec2-spot-worker.service", "ec2-spot-worker-disks.service"} {
		content, err := os.ReadFile(filepath.Join(dir, unit))
		if err != nil {
			t.Fatal(err)
		}
		bind("/etc/systemd/system/"+unit, strings.ReplaceAll(string(content), "/usr/local/bin/ec2-spot-worker", place))
	}
	bind("/etc/systemd/system/ec2-spot-worker.service.d/test.conf",
		"[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT="+d.metadata.URL+"\nStandardError=journal+console\n")
	bind("/etc/ec2-spot-worker.yml", "lifecycle: {drainInterval: 1s}\n")
	args = append(args, "systemd.unit=basic.target", "systemd.wants=ec2-spot-worker.service",
		"systemd.firstboot=no", "systemd.mask=nftables.service")

	m.cmd = exec.CommandContext(t.Context(), "systemd-nspawn", args...)
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console says:\n%s", m.console)
		}
	})
	return m
}

// says waits until something is on the console so many times.
func (m *machine) says(t *testing.T, what string, times int) {
	t.Helper()
	eventually(t, what, func() bool { return strings.Count(m.console.String(), what) >= times })
}

// Under systemd, the worker starts with the machine, starts again when it is
// killed and goes on with its task, and turns the machine off when EC2 takes it
// back.
func TestUnderSystemd(t *testing.T) {
	d := newDeployment(t, `{}`, `{}`)
	m := d.boot(t)
	m.says(t, `"msg":"worker started"`, 1)
	id := d.create(t, `{"maxRunTime": 600, "command": [["/bin/sh", "-c", "echo begun; sleep 3604.125; echo done"]]}`)
	eventually(t, "the task to run", func() bool { return len(processes(t, "3604.125")) == 1 })

	for _, pid := range processes(t, "/etc/ec2-spot-worker.yml") {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	m.says(t, `"msg":"worker started"`, 2)
	for _, pid := range processes(t, "3604.125") {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the task's completion", func() bool {
		state, _ := d.run(t, id)
		return state == "completed"
	})

	if strings.Contains(m.console.String(), "ordering cycle") {
		t.Errorf("the units wait for each other; the console says:\n%s", m.console)
	}

	d.metadata.interrupt(t, "spot")
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("the machine ends with %v", err)
	}
	if w, err := d.manager.Worker(pool, mockRegion, mockInstance); err != nil || w.State != "stopped" {
		t.Errorf("the worker is %s, %v, want stopped", w.State, err)
	}
}
