package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Params are the values that a scope expression is about: a string or a
// []string for each name.
type Params map[string]any

// Expression says which scopes a call needs, in terms of its parameters:
// Scope, AllOf, AnyOf or Each.
type Expression interface {
	// render returns the expression with values in place of parameters, and
	// false if some are missing.
	render(Params) (requirement, bool)
}

// requirement is an expression about definite scopes.
type requirement interface {
	satisfied(by task.Scopes) bool
	json.Marshaler
}

// Scope needs one scope. "<name>" in it stands for a parameter.
type Scope string

// AllOf needs all of the expressions.
type AllOf []Expression

// AnyOf needs one of the expressions.
type AnyOf []Expression

// Each needs a scope for each value of the parameter In, which "<For>" stands
// for in Scope. Inside an AnyOf, one of them is enough.
type Each struct {
	For, In string
	Scope   Scope
}

func (s Scope) render(p Params) (requirement, bool) {
	var out strings.Builder
	for rest := string(s); ; {
		before, after, opened := strings.Cut(rest, "<")
		name, after, closed := strings.Cut(after, ">")
		if !opened || !closed {
			out.WriteString(rest)
			return scope(out.String()), true
		}
		value, ok := p[name].(string)
		if !ok {
			return nil, false
		}
		out.WriteString(before + value)
		rest = after
	}
}

func (e Each) render(p Params) (requirement, bool) {
	list, ok := e.list(p)
	return allOf(list), ok
}

func (e Each) list(p Params) ([]requirement, bool) {
	values, ok := p[e.In].([]string)
	if !ok {
		return nil, false
	}
	one := maps.Clone(p)
	list := make([]requirement, 0, len(values))
	for _, value := range values {
		one[e.For] = value
		r, ok := e.Scope.render(one)
		if !ok {
			return nil, false
		}
		list = append(list, r)
	}
	return list, true
}

func (a AllOf) render(p Params) (requirement, bool) {
	list, ok := renderAll(a, p)
	return allOf(list), ok
}

func (a AnyOf) render(p Params) (requirement, bool) {
	list, ok := renderAll(a, p)
	return anyOf(list), ok
}

func renderAll(expressions []Expression, p Params) ([]requirement, bool) {
	var list []requirement
	for _, e := range expressions {
		if each, ok := e.(Each); ok {
			more, ok := each.list(p)
			if !ok {
				return nil, false
			}
			list = append(list, more...)
			continue
		}
		r, ok := e.render(p)
		if !ok {
			return nil, false
		}
		list = append(list, r)
	}
	return list, true
}

type (
	scope string
	allOf []requirement
	anyOf []requirement
)

func (s scope) satisfied(by task.Scopes) bool { return by.Satisfy(string(s)) }

func (a allOf) satisfied(by task.Scopes) bool {
	for _, r := range a {
		if !r.satisfied(by) {
			return false
		}
	}
	return true
}

func (a anyOf) satisfied(by task.Scopes) bool {
	for _, r := range a {
		if r.satisfied(by) {
			return true
		}
	}
	return false
}

func (s scope) MarshalJSON() ([]byte, error) { return json.Marshal(string(s)) }

func (a allOf) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string][]requirement{"AllOf": a})
}

func (a anyOf) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string][]requirement{"AnyOf": a})
}

// text returns r as the error messages show it.
func text(r requirement) string {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Sprint(r)
	}
	return string(raw)
}

// missing returns what of r the scopes do not satisfy.
func missing(r requirement, have task.Scopes) requirement {
	list, ok := r.(allOf)
	if !ok {
		return r
	}
	var lacking allOf
	for _, part := range list {
		if !part.satisfied(have) {
			lacking = append(lacking, missing(part, have))
		}
	}
	if len(lacking) == 1 {
		return lacking[0]
	}
	return lacking
}
