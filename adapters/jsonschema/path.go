package jsonschema

import (
	"regexp"
	"strconv"
	"strings"
)

// root is the path of the document itself.
const root = "payload"

// plain are the property names that need no quotes in a path.
var plain = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$-]*$`)

// path writes a location in doc in the form artifacts[2].type. Property names
// that are not plain are quoted, as in env["a b"], so that a path is one line
// whatever a document holds.
func path(doc any, location []string) string {
	var b strings.Builder
	for _, token := range location {
		if list, ok := doc.([]any); ok {
			b.WriteString("[" + token + "]")
			doc = nil
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(list) {
				doc = list[i]
			}
			continue
		}
		switch {
		case !plain.MatchString(token):
			b.WriteString("[" + quote(token) + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
		object, _ := doc.(map[string]any)
		doc = object[token]
	}
	if b.Len() == 0 {
		return root
	}
	return b.String()
}

// quote quotes s, which may be long or hold anything, for a line of a log.
func quote(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		return strconv.Quote(string(r[:most])) + "…"
	}
	return strconv.Quote(s)
}
