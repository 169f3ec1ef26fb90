package enginetest

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// memoryShell knows "echo" and "exit".
type memoryShell struct {
	stdin  *io.PipeWriter
	stdout *io.PipeReader
	done   chan struct{}
	code   int
	kill   func()
}

// OpenShell implements engine.Shells.
func (s *memorySandbox) OpenShell(ctx context.Context, _ engine.ShellOptions) (engine.Shell, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	sh := &memoryShell{stdin: stdin, stdout: stdout, done: make(chan struct{}), code: -1}
	sh.kill = sync.OnceFunc(func() {
		_ = in.CloseWithError(io.EOF)  // never fails
		_ = out.CloseWithError(io.EOF) // never fails
	})
	stop := context.AfterFunc(s.ctx, sh.kill)
	go func() {
		defer close(sh.done)
		defer sh.kill()
		defer stop()
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "echo":
				if _, err := io.WriteString(out, rest+"\n"); err != nil {
					return
				}
			case "exit":
				if code, err := strconv.Atoi(rest); err == nil {
					sh.code = code
				}
				return
			}
		}
	}()
	return sh, nil
}

// Stdin implements engine.Shell.
func (s *memoryShell) Stdin() io.WriteCloser { return s.stdin }

// Stdout implements engine.Shell.
func (s *memoryShell) Stdout() io.Reader { return s.stdout }

// Stderr implements engine.Shell.
func (s *memoryShell) Stderr() io.Reader { return strings.NewReader("") }

// Resize implements engine.Shell.
func (s *memoryShell) Resize(uint16, uint16) error { return nil }

// Wait implements engine.Shell.
func (s *memoryShell) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.done:
		return s.code, nil
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// Close implements engine.Shell.
func (s *memoryShell) Close() error {
	s.kill()
	<-s.done
	return nil
}
