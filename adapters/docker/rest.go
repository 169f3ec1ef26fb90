package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/cgroup"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// The program that a container rests in is there if it was generated before the
// worker was built.
//
//go:generate env GOOS=linux CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o embedded/rest_linux_$GOARCH ./internal/rest
//go:embed embedded
var embedded embed.FS

// Where the program is in a container.
const (
	restDir     = "/.taskcluster/"
	restProgram = restDir + "rest"
)

// restArchive returns an archive that has the program in its place.
func restArchive() ([]byte, error) {
	program, err := embedded.ReadFile("embedded/rest_linux_" + runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	t := tar.NewWriter(&archive)
	name := strings.TrimPrefix(restProgram, "/")
	err = errors.Join(
		t.WriteHeader(&tar.Header{Name: path.Dir(name) + "/", Typeflag: tar.TypeDir, Mode: 0o755}),
		t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}),
	)
	if err == nil {
		_, err = t.Write(program)
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return nil, fmt.Errorf("pack program: %w", err)
	}
	return archive.Bytes(), nil
}

// restImage returns the name of an image with nothing but the program, or "" if
// there is no program.
func (e *Engine) restImage(ctx context.Context) (string, error) {
	archive, err := restArchive()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(archive)
	name := "taskcluster-worker.invalid/rest:" + hex.EncodeToString(sum[:8])
	if _, err := e.daemon.ImageInspect(ctx, name); err == nil {
		return name, nil
	} else if !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("look for image %s: %w", name, err)
	}
	source := client.ImageImportSource{Source: bytes.NewReader(archive), SourceName: "-"}
	answer, err := e.daemon.ImageImport(ctx, source, name, client.ImageImportOptions{})
	if err != nil {
		return "", fmt.Errorf("import image %s: %w", name, err)
	}
	_, err = io.Copy(io.Discard, answer)
	return name, errors.Join(err, answer.Close())
}

// startRest starts a container that rests in a network, with no rights at all.
func (e *Engine) startRest(ctx context.Context, image, network string) (id string, err error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	pids, memory := int64(16), int64(32<<20)
	created, err := e.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: image, Entrypoint: []string{restProgram}, User: "65534:65534", Labels: e.labels()},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(network), LogConfig: container.LogConfig{Type: "none"},
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, ReadonlyRootfs: true,
			Resources: container.Resources{PidsLimit: &pids, Memory: memory, MemorySwap: memory},
		},
	})
	if err != nil {
		return "", fmt.Errorf("create container that rests: %w", err)
	}
	if _, err := e.daemon.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		e.trash.container(created.ID)
		return "", fmt.Errorf("start container that rests: %w", err)
	}
	return created.ID, nil
}

// startResting starts a container that rests, and what its commands need.
func (s *sandbox) startResting(ctx context.Context) error {
	archive, err := restArchive()
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Malformedf("several commands, or a proxy, are not available: this worker was built without: go generate ./adapters/docker")
	}
	if err != nil {
		return err
	}
	if _, err := s.e.daemon.CopyToContainer(ctx, s.id, client.CopyToContainerOptions{DestinationPath: "/", Content: bytes.NewReader(archive)}); err != nil {
		return fmt.Errorf("put program into container: %w", err)
	}
	s.began = time.Now()
	if _, err := s.e.daemon.ContainerStart(ctx, s.id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if len(s.b.proxies) == 0 {
		return nil
	}
	r, err := s.e.daemon.ContainerInspect(ctx, s.id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container: %w", err)
	}
	s.proxies, err = serveProxies(r.Container.State.Pid, s.b.proxies, s.e.log)
	return err
}

// executeAll executes the commands in a container that rests, until one fails,
// and ends it.
func (s *sandbox) executeAll() error {
	lost := s.watch()
	var total engine.Result
	before := s.meter.readNow(s.ctx, s.id)
	for i, argv := range s.b.commands() {
		if s.stopping() {
			s.conclude(&total, false)
			total.Success = false
			return s.endResting(total)
		}
		s.log.Executing(i, argv)
		began := time.Now()
		code, err := s.execute(s.argv(argv))
		if err != nil {
			return s.interrupted(err, lost)
		}
		one := engine.Result{ExitCode: code, Wall: time.Since(began), Success: code == 0}
		now := s.meter.readNow(s.ctx, s.id)
		charge(&one, now, before)
		before = now
		total.ExitCode, total.Wall = code, total.Wall+one.Wall
		charge(&total, now, cgroup.Usage{})
		if code != 0 {
			state, err := s.inspect()
			s.conclude(&total, err == nil && state.OOMKilled)
			one.ExitCode, one.Signal = total.ExitCode, total.Signal
		}
		s.log.Executed(s.outcomeOf(one))
		if code != 0 {
			return s.endResting(total)
		}
	}
	s.conclude(&total, false)
	return s.endResting(total)
}

// execute executes a command and returns its exit code, with all of its output
// in the log.
func (s *sandbox) execute(argv []string) (code int, err error) {
	created, err := s.e.daemon.ExecCreate(s.ctx, s.id, client.ExecCreateOptions{
		TTY: s.b.payload.TTY, AttachStdout: true, AttachStderr: true, Cmd: argv,
	})
	if err != nil {
		return 0, fmt.Errorf("execute command: %w", err)
	}
	attached, err := s.e.daemon.ExecAttach(s.ctx, created.ID, client.ExecAttachOptions{TTY: s.b.payload.TTY})
	if err != nil {
		return 0, fmt.Errorf("execute command: %w", err)
	}
	defer context.AfterFunc(s.ctx, attached.Close)()
	err = newOutput(s.log, s.b.payload.TTY).copy(attached.Reader)
	attached.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read output: %w", err)
	}
	return s.exitCode(created.ID)
}

// exitCode waits for the end of a command, which may have closed its output long
// before.
func (s *sandbox) exitCode(exec string) (int, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		r, err := s.e.daemon.ExecInspect(s.ctx, exec, client.ExecInspectOptions{})
		if err != nil {
			return 0, fmt.Errorf("inspect command: %w", err)
		}
		if !r.Running {
			return r.ExitCode, nil
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
}

// interrupted returns what it means that a command cannot be followed any more.
func (s *sandbox) interrupted(cause error, lost <-chan watched) error {
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	s.mu.Lock()
	killed := s.killed
	s.mu.Unlock()
	var w watched
	select {
	case w = <-lost:
	case <-time.After(time.Second):
		return cause // the daemon is there, and so is the container
	}
	if w.lost.IsZero() && killed {
		r := engine.Result{ExitCode: 128 + 9, Wall: time.Since(s.began)}
		charge(&r, s.meter.read(), cgroup.Usage{})
		s.conclude(&r, false)
		s.log.Executed(s.outcomeOf(r))
		s.settle(r)
		return nil
	}
	return shutdown(cause, "the Docker daemon was lost, and what it executed with it")
}

// endResting ends the container and all that is left in it.
func (s *sandbox) endResting(r engine.Result) error {
	for !s.signal(s.ctx, "KILL") {
		select {
		case <-time.After(time.Second):
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	<-s.watch()
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	r.Wall = max(r.Wall, 1)
	s.settle(r)
	return nil
}
