package task

import (
	"slices"
	"strings"
)

// Scopes is a set of scopes. A scope that ends in "*" stands for all scopes
// that begin with what precedes the star. The order has no meaning.
type Scopes []string

// Satisfy reports whether some scope in s covers every one in required.
func (s Scopes) Satisfy(required ...string) bool {
	for _, r := range required {
		if !slices.ContainsFunc(s, func(have string) bool { return covers(have, r) }) {
			return false
		}
	}
	return true
}

// SatisfyAny reports whether s satisfies every scope of one of the sets. It is
// false for no sets at all.
func (s Scopes) SatisfyAny(sets ...Scopes) bool {
	return slices.ContainsFunc(sets, func(set Scopes) bool { return s.Satisfy(set...) })
}

// Intersect returns the scopes that both s and t satisfy, in normal form.
func (s Scopes) Intersect(t Scopes) Scopes {
	var both Scopes
	for _, a := range s {
		for _, b := range t {
			switch {
			case covers(a, b):
				both = append(both, b)
			case covers(b, a):
				both = append(both, a)
			}
		}
	}
	return both.Normal()
}

// Normal returns s sorted, without any scope that another one in s covers.
func (s Scopes) Normal() Scopes {
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	normal := make(Scopes, 0, len(sorted))
	for i, scope := range sorted {
		covered := slices.ContainsFunc(sorted[:i], func(o string) bool { return covers(o, scope) }) ||
			slices.ContainsFunc(sorted[i+1:], func(o string) bool { return covers(o, scope) })
		if !covered {
			normal = append(normal, scope)
		}
	}
	return normal
}

// Expandable reports whether s holds a scope that assumes roles, so that only
// the auth service knows all that s satisfies.
func (s Scopes) Expandable() bool {
	const role = "assume:"
	return slices.ContainsFunc(s, func(scope string) bool {
		prefix, star := strings.CutSuffix(scope, "*")
		return strings.HasPrefix(scope, role) || star && strings.HasPrefix(role, prefix)
	})
}

// covers reports whether holding the scope have implies holding want.
func covers(have, want string) bool {
	if have == want {
		return true
	}
	prefix, star := strings.CutSuffix(have, "*")
	return star && strings.HasPrefix(want, prefix)
}
