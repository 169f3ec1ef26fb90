package dockertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// Podman is a service of Podman, which speaks the API of Docker.
type Podman struct {
	dir    string
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
}

// StartPodman starts a service that has Image, and trusts registries without
// encryption, by host.
func StartPodman(registries ...string) (_ *Podman, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "podmantest-")
	if err != nil {
		return nil, err
	}
	p := &Podman{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	// runc can do with control groups of every kind.
	p.cmd = exec.Command("podman", "--root", filepath.Join(dir, "data"), "--runroot", filepath.Join(dir, "run"),
		"--tmpdir", filepath.Join(dir, "tmp"), "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc",
		"system", "service", "--time=0", p.Host())
	p.cmd.Dir = dir // conmon leaves a file there when a container is out of memory
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	var trusted strings.Builder
	for _, r := range registries {
		fmt.Fprintf(&trusted, "[[registry]]\nlocation = %q\ninsecure = true\n", r)
	}
	config := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(config, []byte(trusted.String()), 0o600); err != nil {
		return nil, err
	}
	p.cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+config)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start podman: %w", err)
	}
	p.exited = make(chan struct{})
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // how it ends tells nothing
	}()
	c, err := p.Client()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := await(c, p.exited, p.Log); err != nil {
		return nil, err
	}
	return p, importImage(c)
}

// Host is the address of the API.
func (p *Podman) Host() string { return "unix://" + filepath.Join(p.dir, "podman.sock") }

// Client returns a client of the service, which the caller closes.
func (p *Podman) Client() (*client.Client, error) { return client.New(client.WithHost(p.Host())) }

// Log returns the end of what the service has logged.
func (p *Podman) Log() string { return tail(p.log.Name()) }

// Stop ends the service, which leaves nothing.
func (p *Podman) Stop() error {
	if p.exited != nil {
		_ = p.cmd.Process.Signal(unix.SIGTERM) // fails if it has exited
		<-p.exited
	}
	if p.log != nil {
		_ = p.log.Close() // nothing is written to it any more
	}
	return errors.Join(unmountBelow(p.dir), os.RemoveAll(p.dir))
}

// await waits until a daemon answers, which may exit instead.
func await(c *client.Client, exited <-chan struct{}, log func() string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := c.Ping(ctx, client.PingOptions{}); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-exited:
			return fmt.Errorf("the daemon has exited:\n%s", log())
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not answer:\n%s", log())
		}
	}
}

// importImage makes Image of the machine's busybox.
func importImage(c *client.Client) error {
	archive, err := Busybox()
	if err != nil {
		return err
	}
	r, err := c.ImageImport(context.Background(), client.ImageImportSource{Source: bytes.NewReader(archive), SourceName: "-"}, Image, client.ImageImportOptions{})
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// tail returns the end of a file.
func tail(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}
