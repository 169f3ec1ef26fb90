package setting

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// JSONSchema returns the JSON schema, draft-07, of the configuration file.
func (t *Table) JSONSchema(title string) ([]byte, error) {
	root := t.sectionSchema("")
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = title
	return json.MarshalIndent(root, "", "  ")
}

func (t *Table) sectionSchema(path string) map[string]any {
	properties := map[string]any{}
	for _, key := range t.keys(path) {
		at := strings.TrimPrefix(path+"."+key, ".")
		if s := t.find(at); s != nil {
			properties[key] = s.schema()
		} else {
			properties[key] = t.sectionSchema(at)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func (s *Setting) schema() map[string]any {
	m := map[string]any{"description": s.description()}
	switch s.kind {
	case boolean:
		m["type"] = "boolean"
	case integer:
		m["type"] = "integer"
	case number:
		m["type"] = "number"
	case size:
		m["type"] = []string{"integer", "string"}
		m["pattern"] = `^[0-9.]+ *([KMGT]iB|[kMGT]?B)?$`
	case duration:
		m["type"] = "string"
		m["pattern"] = `^([0-9.]+(ns|us|µs|ms|s|m|h))+$`
	case list:
		m["type"] = "array"
		m["items"] = s.entries.sectionSchema("")
	case texts:
		one := *s
		one.kind, one.Default = text, ""
		items := one.schema()
		delete(items, "description")
		m["type"], m["items"] = "array", items
		return m
	default:
		m["type"] = "string"
	}
	if s.pattern != nil {
		m["pattern"] = s.pattern.String()
	}
	if len(s.oneOf) > 0 {
		values := make([]any, len(s.oneOf))
		for i, v := range s.oneOf {
			values[i] = s.typed(v)
		}
		m["enum"] = values
	}
	if s.kind == integer || s.kind == number {
		for key, bound := range map[string]string{"minimum": s.min, "maximum": s.max} {
			if bound != "" {
				m[key] = json.Number(bound)
			}
		}
	}
	if s.Default != "" {
		m["default"] = s.typed(s.Default)
	}
	return m
}

// typed returns a value as JSON has it.
func (s *Setting) typed(value string) any {
	switch s.kind {
	case boolean:
		return value == "true"
	case integer, number:
		return json.Number(value)
	default:
		return value
	}
}

// description is Doc with what the schema cannot say.
func (s *Setting) description() string {
	d := s.Doc
	if s.Computed != "" {
		d += " Default: " + s.Computed + "."
	}
	if s.Env == "" {
		return d
	}
	return d + " Environment variable: " + s.Env + "."
}

// Markdown returns the settings as a table for the manual.
func (t *Table) Markdown() string {
	var b strings.Builder
	b.WriteString("| key | value | default | environment variable | meaning |\n|---|---|---|---|---|\n")
	for _, s := range t.settings {
		def := s.Computed
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		if def == "" && s.Needs != "" {
			def = "required by " + s.Needs + s.when.String()
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` | %s |\n", s.Path, s.Expected(), def, s.Env, s.Doc)
	}
	return b.String()
}

// YAML returns values in the form of the file, with where each comes from as a
// comment. Secrets are not in it.
func (t *Table) YAML(values Values) string {
	var b strings.Builder
	var open []string
	for _, s := range t.settings {
		value, ok := values[s.Path]
		if !ok {
			continue
		}
		v := value.Text
		keys := strings.Split(s.Path, ".")
		sections := keys[:len(keys)-1]
		for i, section := range sections {
			if i >= len(open) || open[i] != section {
				fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), section)
				open = open[:min(i, len(open))]
				open = append(open, section)
			}
		}
		open = open[:len(sections)]
		if s.kind.isList() {
			v = s.shown(v)
		}
		if s.Secret {
			v = "(hidden)"
		}
		if s.kind == text {
			v = scalar(v)
		}
		fmt.Fprintf(&b, "%s%s: %s # %s\n", strings.Repeat("  ", len(sections)), keys[len(keys)-1], v, value.Origin)
	}
	return b.String()
}

// scalar returns text as YAML, in quotes where it could be taken for something
// else.
func scalar(v string) string {
	plainText := strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:()") == ""
	switch v {
	case "true", "false", "null", "yes", "no", "on", "off":
		plainText = false
	}
	if _, err := strconv.ParseFloat(v, 64); err == nil || !plainText || strings.Contains(v, ": ") || strings.HasSuffix(v, ":") || strings.HasPrefix(v, "-") {
		return strconv.Quote(v)
	}
	return v
}
