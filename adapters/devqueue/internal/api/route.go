package api

import (
	"net/url"
	"strings"
)

// route is a path with parameters: "/task/<taskId>/artifacts/<name*>". A
// parameter with a star may span several segments, any other is one segment,
// possibly with a literal tail ("<workerPoolId*>:").
type route []segment

type segment struct {
	literal string // all of it, or the tail of a parameter
	param   string
	spans   bool
}

func parseRoute(text string) route {
	var r route
	for part := range strings.SplitSeq(strings.TrimPrefix(text, "/"), "/") {
		name, tail, ok := strings.Cut(strings.TrimPrefix(part, "<"), ">")
		if !ok {
			r = append(r, segment{literal: part})
			continue
		}
		name, spans := strings.CutSuffix(name, "*")
		r = append(r, segment{literal: tail, param: name, spans: spans})
	}
	return r
}

// params returns the names of the route's parameters.
func (r route) params() []string {
	var names []string
	for _, s := range r {
		if s.param != "" {
			names = append(names, s.param)
		}
	}
	return names
}

// match returns the parameters of an escaped path, and whether it is one of
// this route.
func (r route) match(path []string) (map[string]string, bool) {
	extra := len(path) - len(r)
	if extra < 0 {
		return nil, false
	}
	params := map[string]string{}
	for _, s := range r {
		part := path[0]
		path = path[1:]
		if s.spans && extra > 0 {
			part = strings.Join(append([]string{part}, path[:extra]...), "/")
			path, extra = path[extra:], 0
		}
		if s.param == "" {
			if part != s.literal {
				return nil, false
			}
			continue
		}
		value, ok := strings.CutSuffix(part, s.literal)
		if !ok {
			return nil, false
		}
		value, err := url.PathUnescape(value)
		if err != nil || value == "" {
			return nil, false
		}
		params[s.param] = value
	}
	return params, extra == 0
}
