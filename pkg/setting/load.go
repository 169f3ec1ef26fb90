package setting

import (
	"errors"
	"maps"
	"os"
)

// OriginDefault is the origin of values that nobody has set.
const OriginDefault = "default"

// Sources are where values come from. What comes later here has precedence.
type Sources struct {
	File      string // in YAML; none if empty
	Documents []Document
	Environ   []string
}

// Document has the form of a file, but is none. Its values are those of JSON.
type Document struct {
	Name    string // for messages
	Content map[string]any
}

// Load reads the values from a file, or from none if its name is empty, and the
// environment: see LoadFrom.
func (t *Table) Load(file string, environ []string, need string, defaults ...map[string]string) (Values, error) {
	return t.LoadFrom(Sources{File: file, Environ: environ}, need, defaults...)
}

// LoadFrom reads the values from sources. What is needed for something must be
// there, or for nothing in particular, "". Later defaults, by path, take the
// place of those before and of those in the tags.
//
// Errors: Problems, with all that is wrong.
func (t *Table) LoadFrom(from Sources, need string, defaults ...map[string]string) (Values, error) {
	var found []Values
	var problems Problems
	if from.File != "" {
		content, err := os.ReadFile(from.File)
		if err != nil {
			return nil, Problems{{Where: from.File, Message: "cannot read the configuration file: " + reason(err)}}
		}
		values, more := t.ReadFile(from.File, content)
		if values == nil {
			return nil, more
		}
		found, problems = append(found, values), append(problems, more...)
	}
	for _, d := range from.Documents {
		values, more := t.ReadDocument(d)
		found, problems = append(found, values), append(problems, more...)
	}
	fromEnv, more := t.ReadEnv(from.Environ)
	found, problems = append(found, fromEnv), append(problems, more...)
	problems = append(problems, t.Missing(need, problems, found...)...)
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
	for _, v := range found {
		maps.Copy(values, v)
	}
	return values, nil
}

// reason returns why a file could not be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
