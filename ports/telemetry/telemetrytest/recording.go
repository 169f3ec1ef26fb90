package telemetrytest

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Recording is what a telemetry has recorded.
type Recording struct {
	Spans    []Span    // the roots, in the order in which they were started
	Counts   []Count   // one for each name and set of attributes
	Measures []Measure // one for each name and set of attributes
}

// Span is one span and those below it.
type Span struct {
	Name     string
	Attrs    Attrs
	Err      error // what it ended with
	Ended    bool
	Children []Span // in the order in which they were started
}

// Count is a counter with one set of attributes.
type Count struct {
	Name  string
	Attrs Attrs
	Sum   int64
}

// Measure is a histogram with one set of attributes.
type Measure struct {
	Name  string
	Attrs Attrs
	N     int64   // how many values
	Sum   float64 // of the values
}

// Attrs are attributes by key. Keys of a group are joined with a dot. A value is
// a string, int64, float64 or bool, or whatever else was given.
type Attrs map[string]any

// NewAttrs returns attributes as they are recorded.
func NewAttrs(attrs ...slog.Attr) Attrs {
	as := Attrs{}
	as.add("", attrs)
	return as
}

func (as Attrs) add(prefix string, attrs []slog.Attr) {
	for _, a := range attrs {
		v := a.Value.Resolve()
		if v.Kind() == slog.KindGroup {
			group := prefix
			if a.Key != "" {
				group += a.Key + "."
			}
			as.add(group, v.Group())
			continue
		}
		as[prefix+a.Key] = v.Any()
	}
}

// has reports whether all of attrs are among as. Values are compared as they
// are printed, because not everything that can be given can be compared.
func (as Attrs) has(attrs []slog.Attr) bool {
	for k, want := range NewAttrs(attrs...) {
		if got, ok := as[k]; !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			return false
		}
	}
	return true
}

// key is the same for the same attributes only.
func (as Attrs) key() string {
	var pairs []string
	for k, v := range as {
		pairs = append(pairs, fmt.Sprintf("%q=%T(%v)", k, v, v))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, " ")
}

// Find returns the spans of that name that have at least these attributes,
// wherever in the trees they are.
func (r Recording) Find(name string, attrs ...slog.Attr) []Span {
	return find(r.Spans, name, attrs)
}

// Find returns the spans of that name below s that have at least these
// attributes.
func (s Span) Find(name string, attrs ...slog.Attr) []Span {
	return find(s.Children, name, attrs)
}

func find(spans []Span, name string, attrs []slog.Attr) []Span {
	var found []Span
	for _, s := range spans {
		if s.Name == name && s.Attrs.has(attrs) {
			found = append(found, s)
		}
		found = append(found, find(s.Children, name, attrs)...)
	}
	return found
}

// Counted returns the sum of a counter over all that was counted with at least
// these attributes.
func (r Recording) Counted(name string, attrs ...slog.Attr) int64 {
	var sum int64
	for _, c := range r.Counts {
		if c.Name == name && c.Attrs.has(attrs) {
			sum += c.Sum
		}
	}
	return sum
}

// Measured returns how many values a histogram has that were measured with at
// least these attributes, and their sum.
func (r Recording) Measured(name string, attrs ...slog.Attr) (n int64, sum float64) {
	for _, m := range r.Measures {
		if m.Name == name && m.Attrs.has(attrs) {
			n += m.N
			sum += m.Sum
		}
	}
	return n, sum
}

// Tree returns the names of all spans, one on each line, a tab before each for
// each span above it. Spans that ended with an error have its text after a
// colon, those that have not ended an ellipsis.
func (r Recording) Tree() string {
	var b strings.Builder
	write(&b, r.Spans, 0)
	return b.String()
}

func write(b *strings.Builder, spans []Span, depth int) {
	for _, s := range spans {
		b.WriteString(strings.Repeat("\t", depth) + s.Name)
		switch {
		case !s.Ended:
			b.WriteString(" …")
		case s.Err != nil:
			b.WriteString(": " + s.Err.Error())
		}
		b.WriteString("\n")
		write(b, s.Children, depth+1)
	}
}

// Unended returns an error that names the spans that have not ended, if any.
func (r Recording) Unended() error {
	return unended(r.Spans, "")
}

func unended(spans []Span, above string) error {
	var errs []error
	for _, s := range spans {
		path := above + s.Name
		if !s.Ended {
			errs = append(errs, fmt.Errorf("span %s has not ended", path))
		}
		errs = append(errs, unended(s.Children, path+"/"))
	}
	return errors.Join(errs...)
}
