package authtest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

// Memory expands scopes with roles in memory. The zero Memory has no roles and
// is ready to use. Err, if set before use, is what Expand returns.
type Memory struct {
	Err error

	mu    sync.Mutex
	roles map[string]task.Scopes
	asked []task.Scopes
}

var _ auth.Expander = (*Memory)(nil)

// AddRole makes a role that stands for scopes.
func (m *Memory) AddRole(role string, scopes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.roles == nil {
		m.roles = make(map[string]task.Scopes)
	}
	m.roles[role] = scopes
}

// Asked returns what Expand was called with, in order.
func (m *Memory) Asked() []task.Scopes {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// Expand implements auth.Expander.
func (m *Memory) Expand(ctx context.Context, s task.Scopes) (task.Scopes, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, slices.Clone(s))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.Err != nil {
		return nil, m.Err
	}
	all := slices.Clone(s)
	// Each role adds its scopes once, which ends cycles.
	used := make(map[string]bool)
	for i := 0; i < len(all); i++ {
		for role, scopes := range m.roles {
			if !used[role] && assumes(all[i], role) {
				used[role] = true
				all = append(all, scopes...)
			}
		}
	}
	return all, nil
}

// assumes reports whether holding scope gives a role, where both may end in a
// star.
func assumes(scope, role string) bool {
	role = "assume:" + role
	if (task.Scopes{scope}).Satisfy(role) {
		return true
	}
	return strings.HasSuffix(role, "*") && (task.Scopes{role}).Satisfy(scope)
}

// NewHarness returns m as the expander under test.
func NewHarness(m *Memory) Harness { return memoryHarness{m} }

type memoryHarness struct{ m *Memory }

func (h memoryHarness) Expander(testing.TB) auth.Expander { return h.m }

func (h memoryHarness) AddRole(_ testing.TB, role string, scopes task.Scopes) {
	h.m.AddRole(role, scopes...)
}
