package authtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

func TestMemory(t *testing.T) {
	Test(t, func(testing.TB) Harness { return NewHarness(new(Memory)) })
}

func TestMemoryRecordsAndFails(t *testing.T) {
	boom := errors.New("boom")
	m := &Memory{Err: boom}
	if _, err := m.Expand(t.Context(), task.Scopes{"a"}); !errors.Is(err, boom) {
		t.Errorf("Expand returned %v", err)
	}
	if got := m.Asked(); len(got) != 1 || !slices.Equal(got[0], task.Scopes{"a"}) {
		t.Errorf("recorded %v", got)
	}
}

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	without := func(unwanted func(string) bool) expand {
		return func(ctx context.Context, m *Memory, s task.Scopes) (task.Scopes, error) {
			got, err := m.Expand(ctx, s)
			return slices.DeleteFunc(got, unwanted), err
		}
	}
	calls := 0
	defects := map[string]expand{
		"keeps what it is given":    without(func(s string) bool { return strings.HasPrefix(s, "assume:") }),
		"adds the scopes of a role": without(func(s string) bool { return s == "b" }),
		"adds nothing else": func(context.Context, *Memory, task.Scopes) (task.Scopes, error) {
			return task.Scopes{"*"}, nil
		},
		"expands roles of roles":               without(func(s string) bool { return s == "a" }),
		"expands roles that assume each other": without(func(s string) bool { return s == "a" }),
		"a role may end in a star":             without(func(s string) bool { return s == "a" }),
		"a scope may end in a star":            without(func(s string) bool { return s == "b" }),
		"ends when canceled": func(ctx context.Context, m *Memory, s task.Scopes) (task.Scopes, error) {
			return m.Expand(context.WithoutCancel(ctx), s)
		},
		"may be used concurrently": func(ctx context.Context, m *Memory, s task.Scopes) (task.Scopes, error) {
			m.mu.Lock()
			calls++
			first := calls == 1
			m.mu.Unlock()
			if first {
				return s, nil
			}
			return m.Expand(ctx, s)
		},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			defect := defects[c.name]
			if defect == nil {
				t.Fatal("no defect that this check should catch")
			}
			if err := c.check(t.Context(), t, &broken{new(Memory), defect}); err == nil {
				t.Error("the check passed a broken expander")
			}
		})
		delete(defects, c.name)
	}
	for name := range defects {
		t.Errorf("there is no check %q", name)
	}
}

type expand func(context.Context, *Memory, task.Scopes) (task.Scopes, error)

// broken is an expander with a defect, and its harness.
type broken struct {
	m      *Memory
	defect expand
}

func (b *broken) Expander(testing.TB) auth.Expander { return b }

func (b *broken) AddRole(_ testing.TB, role string, scopes task.Scopes) { b.m.AddRole(role, scopes...) }

func (b *broken) Expand(ctx context.Context, s task.Scopes) (task.Scopes, error) {
	return b.defect(ctx, b.m, s)
}
