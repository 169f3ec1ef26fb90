package telemetrytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

var _ telemetry.Telemetry = (*Memory)(nil)

// Memory is a telemetry that keeps what it records. The zero value is ready.
type Memory struct {
	mu       sync.Mutex
	roots    []*span
	spans    uint64 // how many were started
	counts   series[*Count]
	measures series[*Measure]
	misuse   []error
}

// span is a span of a Memory, which guards it.
type span struct {
	Span
	trace, id uint64
	children  []*span
}

// series holds one T for each name and set of attributes, in the order in which
// they first occurred.
type series[T any] struct {
	byKey map[string]T
	all   []T
}

func (s *series[T]) get(name string, attrs Attrs, create func() T) T {
	key := fmt.Sprintf("%q %s", name, attrs.key())
	if v, ok := s.byKey[key]; ok {
		return v
	}
	if s.byKey == nil {
		s.byKey = map[string]T{}
	}
	v := create()
	s.byKey[key] = v
	s.all = append(s.all, v)
	return v
}

// spanKey is the key of the span in a context.
type spanKey struct{ m *Memory }

// Span implements telemetry.Telemetry.
func (m *Memory) Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error)) {
	s := &span{Span: Span{Name: name, Attrs: NewAttrs(attrs...)}}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spans++
	s.id, s.trace = m.spans, m.spans
	if parent, ok := ctx.Value(spanKey{m}).(*span); ok {
		s.trace = parent.trace
		parent.children = append(parent.children, s)
	} else {
		m.roots = append(m.roots, s)
	}
	return context.WithValue(ctx, spanKey{m}, s), func(err error) { m.end(s, err) }
}

func (m *Memory) end(s *span, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Ended {
		m.misuse = append(m.misuse, fmt.Errorf("span %s has ended twice", s.Name))
		return
	}
	s.Ended, s.Err = true, err
}

// Count implements telemetry.Telemetry.
func (m *Memory) Count(_ context.Context, name string, n int64, attrs ...slog.Attr) {
	as := NewAttrs(attrs...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.get(name, as, func() *Count { return &Count{Name: name, Attrs: as} }).Sum += n
}

// Measure implements telemetry.Telemetry.
func (m *Memory) Measure(_ context.Context, name string, value float64, attrs ...slog.Attr) {
	as := NewAttrs(attrs...)
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.measures.get(name, as, func() *Measure { return &Measure{Name: name, Attrs: as} })
	one.N++
	one.Sum += value
}

// Parent implements telemetry.Telemetry. The identifiers are small numbers, the
// same ones in every run of the same test.
func (m *Memory) Parent(ctx context.Context) string {
	s, ok := ctx.Value(spanKey{m}).(*span)
	if !ok {
		return ""
	}
	return fmt.Sprintf("00-%032x-%016x-01", s.trace, s.id)
}

// Recording returns a copy of what has been recorded.
func (m *Memory) Recording() Recording {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Recording{Spans: snapshot(m.roots)}
	for _, c := range m.counts.all {
		r.Counts = append(r.Counts, *c)
	}
	for _, one := range m.measures.all {
		r.Measures = append(r.Measures, *one)
	}
	return r
}

func snapshot(spans []*span) []Span {
	var copies []Span
	for _, s := range spans {
		one := s.Span
		one.Children = snapshot(s.children)
		copies = append(copies, one)
	}
	return copies
}

// Misuse returns an error that names each span that has ended twice or not at
// all, if any. Tests of what uses a telemetry call it at the end.
func (m *Memory) Misuse() error {
	unended := m.Recording().Unended()
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(append([]error{unended}, m.misuse...)...)
}
