package setting

import (
	"errors"
	"maps"
	"os"
)

// OriginDefault is the origin of values that nobody has set.
const OriginDefault = "default"

// Load reads the values from a file, or from none if its name is empty, and the
// environment, which has precedence. What is needed for something must be there,
// or for nothing in particular, "". Later defaults, by path, take the place of
// those before and of those in the tags.
//
// Errors: Problems, with all that is wrong.
func (t *Table) Load(file string, environ []string, need string, defaults ...map[string]string) (Values, error) {
	fromFile := Values{}
	var problems Problems
	if file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return nil, Problems{{Where: file, Message: "cannot read the configuration file: " + reason(err)}}
		}
		if fromFile, problems = t.ReadFile(file, content); fromFile == nil {
			return nil, problems
		}
	}
	fromEnv, more := t.ReadEnv(environ)
	problems = append(problems, more...)
	problems = append(problems, t.Missing(need, problems, fromFile, fromEnv)...)
	if len(problems) > 0 {
		return nil, problems
	}

	values := Values{}
	for _, s := range t.settings {
		text := s.Default
		for _, d := range defaults {
			if d[s.Path] != "" {
				text = d[s.Path]
			}
		}
		if text != "" {
			values[s.Path] = Value{Text: text, Origin: OriginDefault}
		}
	}
	maps.Copy(values, fromFile)
	maps.Copy(values, fromEnv)
	return values, nil
}

// reason returns why a file could not be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
