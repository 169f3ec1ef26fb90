package setting

import (
	"slices"
	"strings"
)

// ReadEnv reads an environment, of the form of os.Environ. Variables that begin
// with the table's prefix must be those of settings; an empty variable is as
// good as none. The values are those that are fine.
func (t *Table) ReadEnv(environ []string) (Values, Problems) {
	values := Values{}
	var problems Problems
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		i := slices.IndexFunc(t.settings, func(s *Setting) bool { return s.Env == name })
		switch {
		case i < 0 && strings.HasPrefix(name, t.prefix):
			problems = append(problems, Problem{Where: name, Message: "unknown variable" + t.variableMeant(name)})
		case i < 0 || value == "":
		default:
			s := t.settings[i]
			if s.kind.isList() {
				v, found := s.readList(name, value)
				if problems = append(problems, found...); len(found) == 0 {
					values[s.Path] = v
				}
				continue
			}
			if err := s.Check(value); err != nil {
				problems = append(problems, Problem{name, s.Path, err.Error()})
				continue
			}
			values[s.Path] = Value{value, name}
		}
	}
	return values, problems
}

// variableMeant suggests which variable was meant by an unknown one.
func (t *Table) variableMeant(name string) string {
	var names []string
	for _, s := range t.settings {
		names = append(names, s.Env)
		if t.prefix+strings.ToUpper(strings.ReplaceAll(s.Path, ".", "_")) == name {
			return didYouMean(s.Env)
		}
	}
	return didYouMean(suggest(name, names))
}

// Missing returns the settings that are required for something but that neither
// a default nor any of the values sets. Those with a problem are not missing.
func (t *Table) Missing(what string, found Problems, values ...Values) Problems {
	var problems Problems
	for _, s := range t.settings {
		isSet := slices.ContainsFunc(values, func(v Values) bool { return v[s.Path] != Value{} }) ||
			slices.ContainsFunc(found, func(p Problem) bool { return p.Path == s.Path })
		if what != "" && s.Needs == what && s.Default == "" && !isSet && t.holds(s.when, values) {
			problems = append(problems, Problem{
				Path:    s.Path,
				Message: "is missing: expected " + s.Expected() + ", in the configuration file or in " + s.Env,
			})
		}
	}
	return problems
}

// holds reports whether a condition holds with values of which later ones have
// precedence.
func (t *Table) holds(c condition, values []Values) bool {
	if c.path == "" {
		return true
	}
	value := t.find(c.path).Default
	for _, v := range values {
		if set, ok := v[c.path]; ok {
			value = set.Text
		}
	}
	return slices.Contains(c.values, value)
}
