package task_test

import (
	"strings"
	"testing"
	"testing/quick"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

func TestScopesSatisfy(t *testing.T) {
	for _, tt := range []struct {
		name     string
		have     task.Scopes
		required []string
		want     bool
	}{
		{"nothing is required", nil, nil, true},
		{"the very scope", task.Scopes{"a:b"}, []string{"a:b"}, true},
		{"a prefix without a star is no pattern", task.Scopes{"a:"}, []string{"a:b"}, false},
		{"a pattern", task.Scopes{"a:*"}, []string{"a:b", "a:c"}, true},
		{"a pattern covers a narrower pattern", task.Scopes{"a:*"}, []string{"a:b*"}, true},
		{"a pattern does not cover a wider one", task.Scopes{"a:b*"}, []string{"a:*"}, false},
		{"one of two is missing", task.Scopes{"a"}, []string{"a", "b"}, false},
		{"a star covers all", task.Scopes{"*"}, []string{"a", "b*", "*"}, true},
		{"a star in the middle is a plain character", task.Scopes{"a:*:c"}, []string{"a:b:c"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.have.Satisfy(tt.required...); got != tt.want {
				t.Errorf("%q.Satisfy(%q) = %v", tt.have, tt.required, got)
			}
		})
	}
}

func TestScopesSatisfyAny(t *testing.T) {
	have := task.Scopes{"a", "b"}
	if have.SatisfyAny() {
		t.Error("no sets are satisfied")
	}
	if !have.SatisfyAny(task.Scopes{"c"}, task.Scopes{"a", "b"}) {
		t.Error("the second set is not satisfied")
	}
	if have.SatisfyAny(task.Scopes{"a", "c"}, task.Scopes{"d"}) {
		t.Error("half a set satisfies")
	}
}

func TestScopesExpandable(t *testing.T) {
	for scope, want := range map[string]bool{"assume:role": true, "ass*": true, "*": true, "assume:*": true, "queue:*": false, "assumed": false} {
		if got := (task.Scopes{"x", scope}).Expandable(); got != want {
			t.Errorf("%q is expandable: %v, want %v", scope, got, want)
		}
	}
}

func TestScopesIntersectIsNoUnion(t *testing.T) {
	got := task.Scopes{"a:*", "b", "c:x"}.Intersect(task.Scopes{"a:1", "a:2*", "c:*", "d"})
	if diff := cmp.Diff(task.Scopes{"a:1", "a:2*", "c:x"}, got); diff != "" {
		t.Errorf("intersection (-want +got):\n%s", diff)
	}
}

// scopesFrom makes scopes of few characters, so that random ones have much to
// do with one another.
func scopesFrom(seed []byte) task.Scopes {
	var s task.Scopes
	for _, b := range seed {
		scope := strings.Repeat("a", int(b&3)) + strings.Repeat("b", int(b>>2&3))
		if b&16 != 0 {
			scope += "*"
		}
		s = append(s, scope)
	}
	return s
}

func TestScopesProperties(t *testing.T) {
	for name, property := range map[string]func(a, b, probe []byte) bool{
		"an intersection satisfies just what both sides do": func(a, b, probe []byte) bool {
			s, u := scopesFrom(a), scopesFrom(b)
			both := s.Intersect(u)
			for _, scope := range scopesFrom(probe) {
				if both.Satisfy(scope) != (s.Satisfy(scope) && u.Satisfy(scope)) {
					return false
				}
			}
			return true
		},
		"intersection commutes": func(a, b, _ []byte) bool {
			s, u := scopesFrom(a), scopesFrom(b)
			return cmp.Equal(s.Intersect(u), u.Intersect(s))
		},
		"the normal form satisfies the same scopes": func(a, _, probe []byte) bool {
			s := scopesFrom(a)
			for _, scope := range scopesFrom(probe) {
				if s.Satisfy(scope) != s.Normal().Satisfy(scope) {
					return false
				}
			}
			return true
		},
		"the normal form has no redundant scope": func(a, _, _ []byte) bool {
			n := scopesFrom(a).Normal()
			for i, scope := range n {
				rest := append(append(task.Scopes(nil), n[:i]...), n[i+1:]...)
				if rest.Satisfy(scope) {
					return false
				}
			}
			return true
		},
		"satisfaction is transitive": func(a, b, c []byte) bool {
			s, u, v := scopesFrom(a), scopesFrom(b), scopesFrom(c)
			return !s.Satisfy(u...) || !u.Satisfy(v...) || s.Satisfy(v...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := quick.Check(property, &quick.Config{MaxCount: 2000}); err != nil {
				t.Error(err)
			}
		})
	}
}
