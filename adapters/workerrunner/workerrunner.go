// Package workerrunner lets Taskcluster's start-worker launch a worker: it
// speaks the worker's side of the worker-runner protocol, version 1.
//
// Both sides write lines of a tilde and a JSON object. The runner greets with
// what it can do, the worker answers with what both can, and nothing else is
// sent until then, nor anything that one of them cannot.
package workerrunner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Config says how the runner is understood.
type Config struct {
	// Grace is how long the host is there after the runner has said that there
	// is no time for tasks to finish. It does not say how long. The default is
	// 30 seconds.
	Grace time.Duration
}

// The capabilities that this worker has.
const (
	gracefulTermination = "graceful-termination"
	newCredentials      = "new-credentials"
	errorReport         = "error-report"
	shutdown            = "shutdown"
)

// Causes of notices.
const (
	causeFinish = "worker-runner: terminate once tasks are finished"
	causeStop   = "worker-runner: terminate"
	causeGone   = "worker-runner is gone"
)

// The urgencies of notices.
const (
	none = iota
	finishing
	stopping
)

// Runner is the process that started this one. Its methods are safe for
// concurrent use.
type Runner struct {
	grace time.Duration
	renew func(task.Credentials)
	log   *slog.Logger

	notices chan interrupt.Notice // has room for one of each urgency
	greeted chan struct{}         // closed once capabilities are agreed upon
	ended   chan struct{}         // closed once the runner says no more

	out  io.Writer
	turn chan struct{} // has room for who writes a line

	mu     sync.Mutex // for what follows
	agreed []string
}

var _ interrupt.Source = (*Runner)(nil)

// New returns the runner at the other end of in and out, which are this
// process's standard input and output: nothing else may write to out. New
// credentials of the worker are given to renew, one after the other; if that is
// nil, the runner ends the worker instead when they expire. The returned
// function closes in and waits until renew is called no more; in must be such
// that this ends a Read, as [Stdin] is.
func New(cfg Config, in io.ReadCloser, out io.Writer, renew func(task.Credentials), log *slog.Logger) (*Runner, func()) {
	if cfg.Grace <= 0 {
		cfg.Grace = 30 * time.Second
	}
	r := &Runner{
		grace: cfg.Grace, renew: renew, log: log, out: out, turn: make(chan struct{}, 1),
		notices: make(chan interrupt.Notice, stopping), greeted: make(chan struct{}), ended: make(chan struct{}),
	}
	closing := make(chan struct{})
	go func() {
		defer close(r.ended)
		r.listen(in, closing)
	}()
	return r, sync.OnceFunc(func() {
		close(closing)
		if err := in.Close(); err != nil {
			log.WarnContext(context.Background(), "close the connection to worker-runner", slog.Any("error", err))
		}
		<-r.ended
	})
}

// Wait implements interrupt.Source. Besides what the runner announces, its own
// end is a notice: credentials are renewed no more. Running tasks may finish.
func (r *Runner) Wait(ctx context.Context) (interrupt.Notice, error) {
	select {
	case n := <-r.notices:
		return n, nil
	case <-ctx.Done():
		return interrupt.Notice{}, ctx.Err()
	}
}

// ReportError has the runner show an error to the operators of the pool. It
// blocks until the runner has greeted, and until it reads.
//
// Errors: errors.ErrUnsupported, if the runner cannot, or is gone; that of ctx.
func (r *Runner) ReportError(ctx context.Context, report identity.Report) error {
	if report.Extra == nil {
		report.Extra = map[string]any{}
	}
	return r.send(ctx, errorReport, map[string]any{
		"kind": report.Kind, "title": report.Title, "description": report.Description, "extra": report.Extra,
	})
}

// Shutdown has the runner end the worker's use of the host. It blocks and fails
// as ReportError does.
func (r *Runner) Shutdown(ctx context.Context) error {
	return r.send(ctx, shutdown, map[string]any{})
}

// send sends a message of a type that is a capability, too.
func (r *Runner) send(ctx context.Context, kind string, message map[string]any) error {
	select {
	case <-r.greeted:
	default:
		select {
		case <-r.greeted:
		case <-r.ended:
			return fmt.Errorf("send %s to worker-runner, which is gone: %w", kind, errors.ErrUnsupported)
		case <-ctx.Done():
			return fmt.Errorf("send %s to worker-runner, which has not greeted: %w", kind, ctx.Err())
		}
	}
	r.mu.Lock()
	agreed := slices.Contains(r.agreed, kind)
	r.mu.Unlock()
	if !agreed {
		return fmt.Errorf("send %s to worker-runner, which does not know that: %w", kind, errors.ErrUnsupported)
	}
	return r.write(ctx, kind, message)
}

// write writes a message as one line. A runner that hangs does not keep the
// caller beyond ctx, but it does keep the write, which then ends with the process.
func (r *Runner) write(ctx context.Context, kind string, message map[string]any) error {
	message["type"] = kind
	raw, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("send %s to worker-runner: %w", kind, err)
	}
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("send %s to worker-runner, which does not read: %w", kind, ctx.Err())
	}
	written := make(chan error, 1)
	go func() {
		_, err := r.out.Write(slices.Concat([]byte{'~'}, raw, []byte{'\n'}))
		<-r.turn
		written <- err
	}()
	select {
	case err = <-written:
	case <-ctx.Done():
		return fmt.Errorf("send %s to worker-runner, which does not read: %w", kind, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("send %s to worker-runner: %w", kind, err)
	}
	return nil
}

// listen handles what the runner says until it says no more.
func (r *Runner) listen(in io.Reader, closing <-chan struct{}) {
	ctx := context.Background()
	lines := bufio.NewReaderSize(in, maxLine)
	urgency := none
	announce := func(n interrupt.Notice, how int) {
		if how > urgency {
			urgency = how
			r.notices <- n
		}
	}
	for {
		line, err := readLine(lines)
		if err != nil {
			select {
			case <-closing:
			default:
				r.log.WarnContext(ctx, "worker-runner says no more", slog.Any("error", err))
				announce(interrupt.Notice{Cause: causeGone}, finishing)
			}
			return
		}
		m, ok := parse(line)
		if !ok {
			if len(line) > 0 {
				r.log.InfoContext(ctx, "worker-runner", slog.String("line", clipped(line)))
			}
			continue
		}
		switch {
		case m.Type == "welcome":
			r.greet(m.Capabilities)
		case m.Type == gracefulTermination && m.FinishTasks:
			announce(interrupt.Notice{Cause: causeFinish}, finishing)
		case m.Type == gracefulTermination:
			announce(interrupt.Notice{Cause: causeStop, Deadline: time.Now().Add(r.grace)}, stopping)
		case m.Type == newCredentials && r.renew != nil && m.credentials().ClientID != "":
			r.renew(m.credentials())
		default:
			// It may hold an access token.
			r.log.WarnContext(ctx, "worker-runner sends what is not understood", slog.String("type", clipped([]byte(m.Type))))
		}
	}
}

// greet agrees with the runner on what both can do. A second greeting changes
// nothing.
func (r *Runner) greet(theirs []string) {
	select {
	case <-r.greeted:
		return
	default:
	}
	ours := []string{gracefulTermination, errorReport, shutdown}
	if r.renew != nil {
		ours = append(ours, newCredentials)
	}
	both := slices.DeleteFunc(ours, func(c string) bool { return !slices.Contains(theirs, c) })
	ctx := context.Background()
	if err := r.write(ctx, "hello", map[string]any{"capabilities": both}); err != nil {
		r.log.ErrorContext(ctx, "greet", slog.Any("error", err))
		both = nil
	}
	r.mu.Lock()
	r.agreed = both
	r.mu.Unlock()
	close(r.greeted)
}
