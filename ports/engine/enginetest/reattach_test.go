package enginetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func (b *broken) Reopen(testing.TB) engine.Engine { return b }

func (b *broken) Last(tb testing.TB) engine.Engine {
	tb.Helper()
	b.Memory.Last(tb)
	return b
}

func (b *broken) Orphans(ctx context.Context) ([]task.RunID, error) {
	runs, err := b.Memory.Orphans(ctx)
	if b.orphans != nil {
		runs = b.orphans(runs)
	}
	return runs, err
}

func (b *broken) Reattach(ctx context.Context, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
	if b.reattach != nil {
		return b.reattach(b.Memory, o, from)
	}
	return b.Memory.Reattach(ctx, o, from)
}

func (b *broken) Discard(ctx context.Context, run task.RunID) error {
	return errors.Join(b.Memory.Discard(ctx, run), b.discard)
}

func (b *broken) Detach() error {
	if b.detach != nil {
		return b.detach(b.Memory)
	}
	return b.Memory.Detach()
}

// strange is a reattached sandbox with defects, and without shells.
type strange struct {
	engine.Reattached
	abort   bool
	code    bool
	started bool
	late    bool // a Kill counts though it comes too late
	killed  bool
}

func (s *strange) Kill(ctx context.Context) error {
	s.killed = true
	return s.Reattached.Kill(ctx)
}

func (s *strange) Wait(ctx context.Context) (engine.ResultSet, error) {
	r, err := s.Reattached.Wait(ctx)
	switch {
	case err == nil && s.code:
		return &strangeResultSet{r, engine.Result{Success: true, Wall: 1}}, nil
	case err == nil && s.late && s.killed:
		result := r.Result()
		result.Killed = true
		return &strangeResultSet{r, result}, nil
	}
	return r, err
}

func (s *strange) Abort(ctx context.Context) error {
	if s.abort {
		return s.Kill(ctx)
	}
	return s.Reattached.Abort(ctx)
}

func (s *strange) Started() time.Time {
	if s.started {
		return time.Now()
	}
	return s.Reattached.Started()
}

type strangeResultSet struct {
	engine.ResultSet
	result engine.Result
}

func (s *strangeResultSet) Result() engine.Result { return s.result }

// reattachDefects are what the checks of reattachment should catch.
func reattachDefects() map[string][]func(*broken) {
	from := func(change func(tasklog.Position) tasklog.Position) func(*broken) {
		return func(b *broken) {
			b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
				return m.Reattach(context.Background(), o, change(from))
			}
		}
	}
	beginning := from(func(tasklog.Position) tasklog.Position { return 0 })
	as := func(s strange) func(*broken) {
		return func(b *broken) {
			b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
				r, err := m.Reattach(context.Background(), o, from)
				if err != nil {
					return nil, err
				}
				s.Reattached = r
				return &s, nil
			}
		}
	}
	return map[string][]func(*broken){
		"SandboxOutlivesProcess": {
			func(b *broken) { b.orphans = func([]task.RunID) []task.RunID { return nil } },
			func(b *broken) {
				b.detach = func(m *Memory) error {
					err := m.Detach()
					for _, s := range m.orphans {
						s.end(errKilled)
						<-s.ended
					}
					return err
				}
			},
			func(b *broken) { b.undead = true },
			as(strange{code: true}),
		},
		"LosesNoOutputBetweenProcesses": {
			beginning,
			from(func(p tasklog.Position) tasklog.Position { return p + 1 }),
			from(func(p tasklog.Position) tasklog.Position { return max(0, p-1) }),
		},
		"KeepsResultForNextProcess": {as(strange{code: true}), as(strange{late: true}), beginning},
		"AbortsWhatItReattached": {
			as(strange{abort: true}),
			func(b *broken) { b.undead = true },
		},
		"OpensShellsInWhatItReattached": {as(strange{})},
		"TellsWhenItStarted": {func(b *broken) {
			as(strange{started: true})(b)
			b.detach = func(m *Memory) error {
				<-time.After(patience / 3)
				return m.Detach()
			}
		}},
		"DetachesFromAll": {
			func(b *broken) {
				b.wait = func(r engine.ResultSet, _ error) (engine.ResultSet, error) { return r, errBroken }
			},
			func(b *broken) { b.killError = errBroken },
			func(b *broken) {
				var first *tasklog.Log
				b.log = func(l *tasklog.Log) *tasklog.Log {
					first = l
					return l
				}
				b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
					o.Log = first
					return m.Reattach(context.Background(), o, from)
				}
			},
		},
		"DiscardsOrphans": {
			func(b *broken) { b.discard = errBroken },
			func(b *broken) { b.undead = true },
			func(b *broken) {
				b.reattach = func(m *Memory, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
					if r, err := m.Reattach(context.Background(), o, from); err == nil {
						return r, nil
					}
					return nil, errBroken
				}
			},
			func(b *broken) {
				b.orphans = func(runs []task.RunID) []task.RunID { return append(runs, task.RunID{}) }
			},
		},
		"SandboxEndsWithLastProcess": {func(b *broken) {
			b.detach = func(m *Memory) error {
				m.last = false
				return m.Detach()
			}
		}},
	}
}
