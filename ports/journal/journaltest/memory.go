package journaltest

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
)

// Memory is a journal in memory, for the tests of everything else: whatever has
// the same Memory is the next process. The zero Memory is empty and ready.
type Memory struct {
	mu   sync.Mutex
	runs map[task.RunID]*memoryEntry
}

var _ journal.Journal = (*Memory)(nil)

type memoryEntry struct {
	m     *Memory
	saved journal.Saved
}

// Runs implements journal.Journal.
func (m *Memory) Runs() ([]journal.Saved, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []journal.Saved
	for _, e := range m.runs {
		all = append(all, e.saved)
	}
	slices.SortFunc(all, func(a, b journal.Saved) int {
		return strings.Compare(a.Run.String(), b.Run.String())
	})
	return all, nil
}

// Begin implements journal.Journal.
func (m *Memory) Begin(s journal.Saved) journal.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs == nil {
		m.runs = map[task.RunID]*memoryEntry{}
	}
	s.Definition = bytes.Clone(s.Definition)
	e := &memoryEntry{m, s}
	m.runs[s.Run] = e
	return e
}

// Resume implements journal.Journal.
func (m *Memory) Resume(id task.RunID) (journal.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.runs[id]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("journal of run %v: %w", id, fs.ErrNotExist)
}

// Add implements journal.Entry.
func (e *memoryEntry) Add(r journal.Record) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	e.saved = e.saved.After(r)
}

// Forget implements journal.Entry.
func (e *memoryEntry) Forget() {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	if e.m.runs[e.saved.Run] == e {
		delete(e.m.runs, e.saved.Run)
	}
}
