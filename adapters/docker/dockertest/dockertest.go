// Package dockertest runs a real Docker daemon for tests: in a network and with
// mounts of its own, so that nothing of the host is touched, and with images
// that are made without a registry.
package dockertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// DiskSize is how many bytes fit on the disk of a daemon.
const DiskSize = 1 << 30

// Image is the name of an image that every daemon has: busybox, as root.
const Image = "busybox:test"

// insideVariable says what the process is in the namespaces: first, or tests.
const insideVariable = "DOCKERTEST_INSIDE"

const (
	first = "first" // the first process, which starts the tests and reaps what loses its parent
	tests = "tests"
)

// Main runs the tests of a package with a daemon, in namespaces of their own,
// and checks that no goroutine is left. The daemon is set before the first test.
// It returns the exit code.
func Main(m *testing.M, daemon **Daemon) int {
	return Inside(func() int { return testInside(m, daemon) })
}

// Inside calls a function in namespaces of its own, in a new process of this
// program, and returns its result as the exit code. A program calls it first of
// all.
func Inside(f func() int) int {
	switch os.Getenv(insideVariable) {
	case "":
		return enter()
	case first:
		code, err := prepare()
		if err != nil {
			fmt.Fprintln(os.Stderr, "dockertest:", err)
		}
		return code
	default:
		return f()
	}
}

func testInside(m *testing.M, daemon **Daemon) int {
	d, err := Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dockertest:", err)
		return 1
	}
	*daemon = d
	code := m.Run()
	if err := d.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "dockertest:", err)
		return 1
	}
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// enter runs this program again, in a network and with mounts of its own.
func enter() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"="+first)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // which makes all mounts private
		Pdeathsig:    syscall.SIGKILL,
	}
	err := cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(failed.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dockertest: enter namespaces:", err)
		return 1
	}
	return 0
}

// prepare brings up loopback, shows the processes of the namespace, and runs the
// tests. It returns their exit code.
func prepare() (code int, err error) {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return 1, fmt.Errorf("mount /proc: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("bring up loopback: %w: %s", err, out)
	}
	if err := os.Setenv(insideVariable, tests); err != nil {
		return 1, err
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, fmt.Errorf("start tests: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for tests: %w", err)
		case pid == child.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == child.Pid:
			return 1, fmt.Errorf("the tests ended by signal: %v", status.Signal())
		}
	}
}

// Daemon is a Docker daemon.
type Daemon struct {
	dir    string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts a daemon that has Image, with arguments besides its own.
func Start(args ...string) (_ *Daemon, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "dockertest-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{dir: dir, args: args}
	// A disk of its own, so that it can be filled.
	data := filepath.Join(dir, "data")
	// A daemon that maps users is one of them here.
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(data, 0o711)); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, fmt.Sprintf("size=%d", DiskSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount disk: %w", err), d.Stop())
	}
	if err := d.Launch(); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	c, err := d.Client()
	if err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	defer func() { _ = c.Close() }()
	if err := importImage(c); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// Host is the address of the daemon's API.
func (d *Daemon) Host() string { return "unix://" + filepath.Join(d.dir, "docker.sock") }

// Client returns a client of the daemon, which the caller closes.
func (d *Daemon) Client() (*client.Client, error) { return client.New(client.WithHost(d.Host())) }

// Launch starts the daemon again, after Terminate or Kill, and waits until it
// answers.
func (d *Daemon) Launch() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if err := os.Remove(filepath.Join(d.dir, "pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.cmd = exec.Command("dockerd", append([]string{
		"--host", d.Host(), "--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"),
	}, d.args...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // how it ends tells nothing
	}(d.cmd, d.exited)
	c, err := d.Client()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return await(c, d.exited, d.Log)
}

// Log returns the end of what the daemon has logged.
func (d *Daemon) Log() string { return tail(filepath.Join(d.dir, "log")) }

// Terminate stops the daemon as a service manager does.
func (d *Daemon) Terminate() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // fails if it has exited
	<-d.exited
}

// Kill ends the daemon, and leaves its containers running.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill() // fails if it has exited
	<-d.exited
}

// ForgetNetworks removes what a daemon that is not running knows of networks. One
// that was killed while it made one may not start again otherwise.
func (d *Daemon) ForgetNetworks() error { return os.RemoveAll(filepath.Join(d.dir, "data", "network")) }

// Freeze stops the daemon from doing anything, until Thaw.
func (d *Daemon) Freeze() error { return d.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (d *Daemon) Thaw() error { return d.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends the daemon and removes all of it.
func (d *Daemon) Stop() error {
	if d.exited != nil {
		_ = d.Thaw()
		d.Terminate()
	}
	return errors.Join(unmountBelow(d.dir), os.RemoveAll(d.dir))
}

// unmountBelow unmounts all that is mounted below a directory.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := range lines {
		// The last that was mounted is the first to go.
		if f := strings.Fields(lines[len(lines)-1-i]); len(f) > 1 && strings.HasPrefix(f[1], dir) {
			_ = unix.Unmount(f[1], unix.MNT_DETACH) // it goes with the namespace, at the latest
		}
	}
	return nil
}

// Busybox returns the file system of an image as a tar archive: the machine's
// static busybox with a link for each of its applets.
func Busybox() ([]byte, error) {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: install busybox-static", err)
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets: %w", err)
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err == nil {
			err = t.WriteHeader(h)
		}
		if err == nil {
			_, err = t.Write(content)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "home/", "root/", "var/", "usr/"} {
		add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			add(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/home:/bin/sh\n"))
	add(&tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nworker:x:1000:\n"))
	return b.Bytes(), errors.Join(err, t.Close())
}
