package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog/tasklogtest"
)

// succession is a run in a succession of processes.
type succession struct {
	h         Harness
	logs      tasklogtest.Memory
	options   engine.Options
	recording tasklog.Recording
	sandbox   engine.Sandbox
}

// succeed starts a run that has a resumable log.
func succeed(ctx context.Context, tb testing.TB, h Harness, steps ...Step) (*succession, error) {
	tb.Helper()
	s := &succession{h: h}
	s.options, _ = options(tb, h, steps...)
	var err error
	if s.recording, err = s.logs.Record(s.options.Run); err != nil {
		return nil, err
	}
	s.options.Log = tasklog.New(s.recording)
	b, err := h.Engine(tb).NewBuilder(ctx, s.options)
	if err != nil {
		return nil, fmt.Errorf("NewBuilder: %w", err)
	}
	if s.sandbox, err = b.Start(ctx); err != nil {
		return nil, fmt.Errorf("Start: %w", err)
	}
	return s, nil
}

func (s *succession) engine(tb testing.TB) engine.Reattacher {
	tb.Helper()
	return s.h.Engine(tb).(engine.Reattacher)
}

// detach ends the process.
func (s *succession) detach(tb testing.TB) error {
	tb.Helper()
	if err := s.engine(tb).Detach(); err != nil {
		return fmt.Errorf("Detach: %w", err)
	}
	s.h.(Reopener).Reopen(tb)
	return nil
}

// reattach goes on in the next process.
func (s *succession) reattach(ctx context.Context, tb testing.TB) (engine.Reattached, error) {
	tb.Helper()
	if err := s.orphaned(ctx, tb, true); err != nil {
		return nil, err
	}
	recording, at, err := s.logs.Resume(s.options.Run)
	if err != nil {
		return nil, err
	}
	s.recording = recording
	s.options.Log = tasklog.New(recording)
	r, err := s.engine(tb).Reattach(ctx, s.options, at)
	if err != nil {
		return nil, fmt.Errorf("Reattach: %w", err)
	}
	s.sandbox = r
	return r, s.orphaned(ctx, tb, false)
}

// again is detach and reattach.
func (s *succession) again(ctx context.Context, tb testing.TB) error {
	tb.Helper()
	if err := s.detach(tb); err != nil {
		return err
	}
	_, err := s.reattach(ctx, tb)
	return err
}

// orphaned checks whether the run is an orphan.
func (s *succession) orphaned(ctx context.Context, tb testing.TB, want bool) error {
	tb.Helper()
	got, err := s.engine(tb).Orphans(ctx)
	if err != nil {
		return fmt.Errorf("Orphans: %w", err)
	}
	if want && !slices.Equal(got, []task.RunID{s.options.Run}) || !want && len(got) > 0 {
		return fmt.Errorf("Orphans returned %v, want the run itself: %t", got, want)
	}
	return nil
}

// await waits until a text is in the log.
func (s *succession) await(ctx context.Context, text string) error {
	f, err := s.recording.Follow(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var log bytes.Buffer
	for buf := make([]byte, 64<<10); !strings.Contains(log.String(), text); {
		n, err := f.Read(buf)
		if err != nil {
			return fmt.Errorf("waiting for %q in the log: %w; it is:\n%s", text, err, excerpt(log.String()))
		}
		log.Write(buf[:n])
	}
	return nil
}

// release leaves nothing of a run that a check is done with, or has given up.
func (s *succession) release(ctx context.Context, tb testing.TB) {
	tb.Helper()
	ctx = context.WithoutCancel(ctx)
	_ = s.sandbox.Abort(ctx)
	_ = s.engine(tb).Discard(ctx, s.options.Run)
}

// excerpt returns enough of a log to see what is wrong.
func excerpt(log string) string {
	const most = 1000
	if len(log) > 2*most {
		return log[:most] + "\n...\n" + log[len(log)-most:]
	}
	return log
}

func outlivesProcess(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := errors.Join(s.await(ctx, "hanging"), s.orphaned(ctx, tb, false)); err != nil {
		return err
	}
	for i := range 3 {
		if err := s.again(ctx, tb); err != nil {
			return fmt.Errorf("process %d: %w", i+2, err)
		}
		if !h.Alive(tb, mark) {
			return fmt.Errorf("the end of process %d has ended the sandbox", i+1)
		}
	}
	if err := s.sandbox.Kill(ctx); err != nil {
		return fmt.Errorf("Kill: %w", err)
	}
	r, err := finish(ctx, tb, s.sandbox)
	if err != nil {
		return err
	}
	if got := r.Result(); got.Success || !got.Killed {
		return fmt.Errorf("a task that was killed after reattachment has the result %+v", got)
	}
	if h.Alive(tb, mark) {
		return errors.New("a process has survived the kill")
	}
	return nil
}

// losesNoOutput has processes end while the task prints.
func losesNoOutput(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	const numbers, xs = 300_000, 4 << 20
	s, err := succeed(ctx, tb, h,
		Step{Do: Print, Text: "first\n"}, Step{Do: Count, N: numbers}, Step{Do: Flood, N: xs}, Step{Do: Print, Text: "last"})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	for _, text := range []string{"Executing", "first\n", "\n1000\n", "\n200000\n", "xxx"} {
		if err := errors.Join(s.await(ctx, text), s.again(ctx, tb)); err != nil {
			return err
		}
	}
	r, err := finish(ctx, tb, s.sandbox)
	if err != nil {
		return err
	}
	if !r.Result().Success {
		return fmt.Errorf("the result is %+v", r.Result())
	}
	var want bytes.Buffer
	want.WriteString("\nfirst\n")
	for i := range numbers {
		want.WriteString(strconv.Itoa(i+1) + "\n")
	}
	want.Write(bytes.Repeat([]byte("x"), xs))
	want.WriteString("last\n")
	log := s.logs.Text(s.options.Run)
	head, tail, ok := strings.Cut(log, want.String())
	if !ok {
		return fmt.Errorf("of %d bytes that the task has printed, some are missing, doubled or in disorder in the log of %d bytes:\n%s",
			want.Len(), len(log), excerpt(log))
	}
	if strings.Count(head, "Executing command 0") != 1 || strings.Count(head, "\n") > 0 || strings.Count(tail, "Exit Code: 0\n") != 1 {
		return fmt.Errorf("the lines about the command are not there once, but:\n%s\n...\n%s", head, tail)
	}
	return nil
}

// keepsResult has a task end while no process is attached, and processes end
// when the task has ended.
func keepsResult(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Write, Path: "file", Text: "content"}, Step{Do: Linger, Text: mark},
		Step{Do: Print, Text: "started\n"}, Step{Do: Count, N: 200_000}, Step{Do: Exit, N: 7})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := errors.Join(s.await(ctx, "started\n"), s.detach(tb)); err != nil {
		return err
	}
	// The last process of the task ends with it.
	for poll := time.NewTicker(time.Millisecond); h.Alive(tb, mark); {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("a task that nobody is attached to does not end: %w", ctx.Err())
		}
	}
	if _, err := s.reattach(ctx, tb); err != nil {
		return err
	}
	for i := range 2 {
		// It comes too late, however long the process was away.
		if err := s.sandbox.Kill(ctx); err != nil {
			return fmt.Errorf("Kill: %w", err)
		}
		r, err := s.sandbox.Wait(ctx)
		if err != nil {
			return fmt.Errorf("Wait: %w", err)
		}
		if got := r.Result(); got.Success || got.ExitCode != 7 || got.Signal != "" || got.Killed || got.OOM || got.Wall <= 0 {
			return fmt.Errorf("process %d: a task that exits with 7 has the result %+v", i+2, got)
		}
		if err := hasFile(r, "file", "content"); err != nil {
			return err
		}
		log := s.logs.Text(s.options.Run)
		if strings.Count(log, "\n200000\n") != 1 || strings.Count(log, "Exit Code: 7\n") != 1 {
			return fmt.Errorf("process %d: the end is not in the log once:\n%s", i+2, excerpt(log))
		}
		if err := s.again(ctx, tb); err != nil {
			return err
		}
	}
	r, err := finish(ctx, tb, s.sandbox)
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return fmt.Errorf("ResultSet.Close: %w", err)
	}
	return errors.Join(s.detach(tb), s.orphaned(ctx, tb, false))
}

func abortsReattached(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := errors.Join(s.await(ctx, "hanging"), s.again(ctx, tb)); err != nil {
		return err
	}
	if err := s.sandbox.Abort(ctx); err != nil {
		return fmt.Errorf("Abort: %w", err)
	}
	if _, err := s.sandbox.Wait(ctx); !errors.Is(err, engine.ErrAborted) {
		return fmt.Errorf("Wait after Abort returned %q, want ErrAborted", fmt.Sprint(err))
	}
	if h.Alive(tb, mark) {
		return errors.New("a process has survived Abort")
	}
	return errors.Join(s.detach(tb), s.orphaned(ctx, tb, false))
}

func opensShellsInReattached(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach || !h.Abilities().Shells {
		return nil
	}
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark(tb)})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := errors.Join(s.await(ctx, "hanging"), s.again(ctx, tb)); err != nil {
		return err
	}
	shells, ok := s.sandbox.(engine.Shells)
	if !ok {
		return errors.New("no shell can be opened after reattachment")
	}
	shell, err := shells.OpenShell(ctx, engine.ShellOptions{})
	if err != nil {
		return fmt.Errorf("OpenShell: %w", err)
	}
	defer func() { _ = shell.Close() }()
	if _, err := io.WriteString(shell.Stdin(), "echo said\nexit 3\n"); err != nil {
		return fmt.Errorf("write to the shell: %w", err)
	}
	said, err := io.ReadAll(shell.Stdout())
	if code, e := shell.Wait(ctx); code != 3 || err != nil || e != nil || !strings.Contains(string(said), "said") {
		return fmt.Errorf("a shell that exits with 3 printed %q and ended with %d, %w", said, code, errors.Join(err, e))
	}
	return nil
}

func tellsWhenItStarted(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	before := time.Now()
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark(tb)})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := s.await(ctx, "hanging"); err != nil {
		return err
	}
	after := time.Now()
	for range 2 {
		if err := s.detach(tb); err != nil {
			return err
		}
		r, err := s.reattach(ctx, tb)
		if err != nil {
			return err
		}
		const precision = 50 * time.Millisecond
		if got := r.Started(); got.Before(before.Add(-precision)) || got.After(after.Add(precision)) {
			return fmt.Errorf("Started returns %v, want a time from %v to %v", got, before, after)
		}
	}
	return nil
}

// detachesFromAll checks what is left to whoever has a sandbox that was detached.
func detachesFromAll(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Print, Text: "before\n"}, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := s.await(ctx, "hanging"); err != nil {
		return err
	}
	waited := make(chan error, 1)
	left := s.sandbox
	go func() {
		_, err := left.Wait(ctx)
		waited <- err
	}()
	before := s.recording
	if err := s.again(ctx, tb); err != nil {
		return err
	}
	if err := <-waited; !errors.Is(err, engine.ErrDetached) {
		return fmt.Errorf("Wait while the engine detaches returned %q, want ErrDetached", fmt.Sprint(err))
	}
	if _, err := left.Wait(ctx); !errors.Is(err, engine.ErrDetached) {
		return fmt.Errorf("Wait after Detach returned %q, want ErrDetached", fmt.Sprint(err))
	}
	if err := errors.Join(left.Kill(ctx), left.Abort(ctx)); err != nil {
		return fmt.Errorf("Kill and Abort after Detach: %w", err)
	}
	if !h.Alive(tb, mark) {
		return errors.New("a sandbox that was detached has ended its task")
	}
	if err := s.sandbox.Kill(ctx); err != nil {
		return fmt.Errorf("Kill: %w", err)
	}
	if _, err := finish(ctx, tb, s.sandbox); err != nil {
		return err
	}
	f, err := before.Open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if old, err := io.ReadAll(f); err != nil || bytes.Contains(old, []byte("Exit Code")) {
		return fmt.Errorf("after Detach, the log was written to, %w:\n%s", err, old)
	}
	return nil
}

func discardsOrphans(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := errors.Join(s.await(ctx, "hanging"), s.detach(tb)); err != nil {
		return err
	}
	other := s.options
	other.Run.Run++
	if _, err := s.engine(tb).Reattach(ctx, other, 0); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("Reattach of another run returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	if err := errors.Join(s.engine(tb).Discard(ctx, other.Run), s.orphaned(ctx, tb, true)); err != nil {
		return err
	}
	for i := range 2 {
		if err := s.engine(tb).Discard(ctx, s.options.Run); err != nil {
			return fmt.Errorf("Discard, call %d: %w", i+1, err)
		}
		if h.Alive(tb, mark) {
			return errors.New("a process has survived Discard")
		}
	}
	if _, err := s.engine(tb).Reattach(ctx, s.options, 0); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("Reattach after Discard returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	return errors.Join(s.orphaned(ctx, tb, false), s.detach(tb), s.orphaned(ctx, tb, false))
}

// endsWithLast has a process detach, as though it were killed, that no other one
// is to come after.
func endsWithLast(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Reattach {
		return nil
	}
	h.(Reopener).Last(tb)
	mark := mark(tb)
	s, err := succeed(ctx, tb, h, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer s.release(ctx, tb)
	if err := s.await(ctx, "hanging"); err != nil {
		return err
	}
	if err := s.engine(tb).Detach(); err != nil {
		return fmt.Errorf("Detach: %w", err)
	}
	defer h.(Reopener).Reopen(tb)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for h.Alive(tb, mark) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errors.New("the task goes on, though no process is to come")
		}
	}
	return nil
}
