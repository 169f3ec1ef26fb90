package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

var _ engine.Shells = (*sandbox)(nil)

// defaultShell is the shell that an image most probably has.
var defaultShell = []string{"/bin/sh"}

// OpenShell implements engine.Shells.
func (s *sandbox) OpenShell(ctx context.Context, o engine.ShellOptions) (engine.Shell, error) {
	command := o.Command
	if len(command) == 0 {
		command = defaultShell
	}
	var size client.ConsoleSize
	if o.TTY {
		size = client.ConsoleSize{Width: uint(cmp.Or(o.Columns, 80)), Height: uint(cmp.Or(o.Rows, 24))}
	}
	created, err := s.e.daemon.ExecCreate(ctx, s.id, client.ExecCreateOptions{
		TTY: o.TTY, ConsoleSize: size, AttachStdin: true, AttachStdout: true, AttachStderr: true, Cmd: command,
	})
	if err != nil {
		return nil, fmt.Errorf("open shell: %w", err)
	}
	attached, err := s.e.daemon.ExecAttach(ctx, created.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: size})
	if err != nil {
		return nil, fmt.Errorf("open shell: %w", err)
	}
	sh := &shell{s: s, exec: created.ID, conn: attached.HijackedResponse, ended: make(chan struct{})}
	sh.stdout, sh.out = io.Pipe()
	sh.stderr, sh.err = io.Pipe()
	sh.unlink = context.AfterFunc(s.ctx, sh.conn.Close)
	s.e.background.Go(func() { sh.follow(o.TTY) })
	return sh, nil
}

// shell is a process that is executed in a container.
type shell struct {
	s      *sandbox
	exec   string
	conn   client.HijackedResponse
	unlink func() bool

	stdout, stderr *io.PipeReader
	out, err       *io.PipeWriter

	ended chan struct{} // closed when the output has ended
	close sync.Once
}

// follow passes the output on until it ends.
func (s *shell) follow(tty bool) {
	defer close(s.ended)
	var err error
	if tty {
		_, err = io.Copy(s.out, s.conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(s.out, s.err, s.conn.Reader)
	}
	_ = s.out.CloseWithError(err) // these never fail
	_ = s.err.CloseWithError(err)
}

// Stdin implements engine.Shell.
func (s *shell) Stdin() io.WriteCloser { return stdin{s.conn} }

// Stdout implements engine.Shell.
func (s *shell) Stdout() io.Reader { return s.stdout }

// Stderr implements engine.Shell.
func (s *shell) Stderr() io.Reader { return s.stderr }

// Resize implements engine.Shell.
func (s *shell) Resize(columns, rows uint16) error {
	ctx, cancel := context.WithTimeout(s.s.ctx, callTime)
	defer cancel()
	if _, err := s.s.e.daemon.ExecResize(ctx, s.exec, client.ExecResizeOptions{Width: uint(columns), Height: uint(rows)}); err != nil {
		return fmt.Errorf("resize shell: %w", err)
	}
	return nil
}

// Wait implements engine.Shell.
func (s *shell) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.ended:
	case <-s.s.ctx.Done():
		return -1, nil
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	code, err := s.s.exitCode(s.exec)
	switch {
	case err == nil:
		return code, nil
	case errors.Is(err, context.Canceled) && ctx.Err() == nil:
		return -1, nil // with its sandbox
	default:
		return -1, err
	}
}

// exitCode waits for the end of a process, which may have closed its output long
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

// Close implements engine.Shell. A shell without its terminal gets a hangup; one
// without a terminal reads the end of its input.
func (s *shell) Close() error {
	s.close.Do(func() {
		s.unlink()
		s.conn.Close()
		_ = s.stdout.CloseWithError(errClosed) // ends follow; these never fail
		_ = s.stderr.CloseWithError(errClosed)
		<-s.ended
	})
	return nil
}

var errClosed = errors.New("docker: shell is closed")

// stdin is the input of a shell.
type stdin struct{ conn client.HijackedResponse }

// Write implements io.Writer.
func (i stdin) Write(p []byte) (int, error) { return i.conn.Conn.Write(p) }

// Close implements io.Closer: the shell reads the end of its input.
func (i stdin) Close() error { return i.conn.CloseWrite() }
