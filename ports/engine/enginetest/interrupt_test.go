package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Interrupt has a defect if b.interrupt is one.
func (s *brokenSandbox) Interrupt(ctx context.Context, i engine.Interruption) error {
	told := s.Sandbox.(engine.Interrupter)
	if s.b.interrupt != nil {
		return s.b.interrupt(ctx, s, told, i)
	}
	return told.Interrupt(ctx, i)
}

// deaf is a reattached sandbox that tells its task nothing.
type deaf struct{ engine.Reattached }

func (deaf) Interrupt(context.Context, engine.Interruption) error { return nil }

// interruptDefects are what the checks of interruptions should catch.
func interruptDefects() map[string][]func(*broken) {
	with := func(f func(ctx context.Context, s *brokenSandbox, told engine.Interrupter, i engine.Interruption) error) func(*broken) {
		return func(b *broken) { b.interrupt = f }
	}
	change := func(f func(*engine.Interruption)) func(*broken) {
		return with(func(ctx context.Context, _ *brokenSandbox, told engine.Interrupter, i engine.Interruption) error {
			f(&i)
			return told.Interrupt(ctx, i)
		})
	}
	ended := with(func(ctx context.Context, s *brokenSandbox, told engine.Interrupter, i engine.Interruption) error {
		return errors.Join(s.Kill(ctx), told.Interrupt(ctx, i)) // in this order, since the task ends as fast as it can
	})
	nothing := with(func(context.Context, *brokenSandbox, engine.Interrupter, engine.Interruption) error { return nil })
	failing := with(func(context.Context, *brokenSandbox, engine.Interrupter, engine.Interruption) error { return errBroken })
	result := func(f func(*engine.Result)) func(*broken) {
		return func(b *broken) {
			b.result = func(r engine.Result) engine.Result {
				f(&r)
				return r
			}
		}
	}
	untold := result(func(r *engine.Result) { r.Interrupted = false })
	return map[string][]func(*broken){
		"TellsTaskToStop": {
			nothing, failing, ended, untold,
			change(func(i *engine.Interruption) { i.Stop = false }),
			change(func(i *engine.Interruption) { i.Cause = "" }),
			change(func(i *engine.Interruption) { i.Deadline = time.Time{} }),
			change(func(i *engine.Interruption) { i.Deadline = i.Deadline.Add(time.Hour) }),
			func(b *broken) { b.early = true },
			func(b *broken) { b.log = func(l *tasklog.Log) *tasklog.Log { return tasklog.New(&dropping{l, "{"}) } },
		},
		"AnnouncesInterruption": {
			nothing, failing, untold,
			change(func(i *engine.Interruption) { i.Stop = true }),
			change(func(i *engine.Interruption) { i.Cause = "first" }),
			change(func(i *engine.Interruption) { i.Deadline = time.Now() }),
			result(func(r *engine.Result) { r.Interrupted = true }),
		},
		"KillsWhatHeedsNoInterruption": {
			failing, untold,
			func(b *broken) { b.undead = true },
			func(b *broken) { b.killError = errBroken },
			result(func(r *engine.Result) { r.Killed = false }),
		},
		"ExecutesNothingAfterInterruption": {
			nothing, failing, untold,
			result(func(r *engine.Result) { r.ExitCode = 127 }),
			result(func(r *engine.Result) { r.Success = true }),
		},
		"InterruptionAfterEndDoesNothing": {
			failing,
			result(func(r *engine.Result) { r.Interrupted = true }),
		},
		"InterruptsWhatItReattached": {
			failing,
			func(b *broken) {
				b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
					r, err := m.Reattach(context.Background(), o, from)
					return deaf{r}, err
				}
			},
			func(b *broken) {
				b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
					r, err := m.Reattach(context.Background(), o, from)
					return &strange{Reattached: r}, err
				}
			},
		},
	}
}

func TestInterruptionFile(t *testing.T) {
	deadline := time.Date(2026, 1, 2, 3, 4, 5, 999e6, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name string
		i    engine.Interruption
		want string
	}{
		{"without a deadline", engine.Interruption{Cause: "drain"}, `{"cause":"drain"}`},
		{"with one", engine.Interruption{Cause: "spot \"x\"\n", Deadline: deadline, Stop: true}, `{"cause":"spot \"x\"\n","deadline":"2026-01-02T02:04:05.999Z"}`},
		{"of no UTF-8", engine.Interruption{Cause: "\xff"}, `{"cause":"\ufffd"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.i.File()
			if string(bytes.TrimSuffix(got, []byte("\n"))) != tt.want || !json.Valid(got) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
