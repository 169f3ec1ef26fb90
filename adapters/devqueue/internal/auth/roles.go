package auth

import (
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

const assume = "assume:"

// Roles maps a role's id to the scopes that whoever assumes it has. An id that
// ends in "*" is a pattern; "<..>" in its scopes stands for what the star
// matched.
type Roles map[string]task.Scopes

// Expand returns the scopes and all those of the roles they assume, directly
// or through other roles.
func (r Roles) Expand(scopes task.Scopes) task.Scopes {
	seen := map[string]bool{}
	var all, todo task.Scopes
	add := func(scopes task.Scopes) {
		for _, s := range scopes {
			if !seen[s] {
				seen[s] = true
				all = append(all, s)
				todo = append(todo, s)
			}
		}
	}
	add(scopes)
	for len(todo) > 0 && len(seen) < maxExpanded {
		scope := todo[0]
		todo = todo[1:]
		for _, role := range assumed(scope) {
			for id, granted := range r {
				if suffix, ok := matches(role, id); ok {
					add(substitute(granted, suffix))
				}
			}
		}
	}
	return all.Normal()
}

// maxExpanded bounds the expansion of roles that grow without end, such as a
// role a* with the scope assume:ax<..>.
const maxExpanded = 1000

// assumed returns the role, or the pattern of roles, that a scope assumes.
func assumed(scope string) []string {
	if role, ok := strings.CutPrefix(scope, assume); ok {
		return []string{role}
	}
	if prefix, star := strings.CutSuffix(scope, "*"); star && strings.HasPrefix(assume, prefix) {
		return []string{"*"}
	}
	return nil
}

// matches reports whether assuming role implies assuming the role with the
// given id, and returns what a star at the end of id stands for.
func matches(role, id string) (suffix string, ok bool) {
	if prefix, star := strings.CutSuffix(id, "*"); star {
		if suffix, ok := strings.CutPrefix(role, prefix); ok {
			return suffix, true
		}
	}
	if role == id {
		return "", true
	}
	if prefix, star := strings.CutSuffix(role, "*"); star && strings.HasPrefix(id, prefix) {
		return "*", true
	}
	return "", false
}

// substitute puts suffix in place of "<..>". A suffix that ends in a star cuts
// the scope there, as the star stands for anything.
func substitute(scopes task.Scopes, suffix string) task.Scopes {
	const hole = "<..>"
	out := make(task.Scopes, 0, len(scopes))
	for _, s := range scopes {
		if before, after, ok := strings.Cut(s, hole); ok {
			s = before + suffix
			if !strings.HasSuffix(suffix, "*") {
				s += after
			}
		}
		out = append(out, s)
	}
	return out
}
