package journaltest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

func TestMemory(t *testing.T) {
	Test(t, func(testing.TB) Harness { return new(broken) })
}

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	left := claimed(0)
	nothing := func(journal.Entry, journal.Record) {}
	defects := map[string][]*broken{
		"is empty at first": {
			{runs: func([]journal.Saved) ([]journal.Saved, error) { return nil, errors.New("boom") }},
			{runs: func([]journal.Saved) ([]journal.Saved, error) { return []journal.Saved{left}, nil }},
		},
		"keeps what was claimed": {
			{begin: func(s *journal.Saved) { s.Definition = json.RawMessage(`{}`) }},
			{begin: func(s *journal.Saved) { s.Credentials = task.Credentials{} }},
			{runs: once()},
		},
		"keeps each record":          {{add: nothing}, {add: besides[journal.Released]()}, {add: besides[journal.Uploaded]()}},
		"keeps the order of records": {{add: backward()}},
		"keeps runs apart":           {{begin: func(s *journal.Saved) { s.Run.Run = 0 }}},
		"goes on with an entry": {
			{resume: func(*Memory, task.RunID) (journal.Entry, error) { return nil, fs.ErrNotExist }},
			{resume: func(m *Memory, id task.RunID) (journal.Entry, error) {
				return m.Begin(journal.Saved{Saved: queue.Saved{Run: id}}), nil
			}},
		},
		"goes on only with what there is": {{resume: func(m *Memory, id task.RunID) (journal.Entry, error) {
			return m.Begin(journal.Saved{Saved: queue.Saved{Run: id}}), nil
		}}},
		"begins anew":                       {{keep: true}},
		"forgets":                           {{forget: func(journal.Entry) {}}},
		"adds nothing to what is forgotten": {{forget: func(journal.Entry) {}}},
		"owns what it is given":             {{alias: true}},
		"may be used concurrently":          {{add: besides[journal.Held]()}},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if len(defects[c.name]) == 0 {
				t.Fatal("no defect that this check should catch")
			}
			for i, b := range defects[c.name] {
				if err := c.check(t, b); err == nil {
					t.Errorf("the check passed a journal with defect %d", i)
				}
			}
		})
		delete(defects, c.name)
	}
	for name := range defects {
		t.Errorf("there is no check %q", name)
	}
}

func TestAfterLeavesItsReceiver(t *testing.T) {
	before := claimed(0).After(journal.Held{Volume: "v", Cache: "c"})
	for _, r := range records {
		before.After(r)
	}
	before.After(journal.Released{Volume: "v"})
	if len(before.Volumes) != 1 || before.State != run.Claimed || before.Artifacts != nil {
		t.Errorf("it became %+v", before)
	}
}

// broken is a journal, and its harness, with the defects that are not zero.
type broken struct {
	Memory
	runs   func([]journal.Saved) ([]journal.Saved, error)
	begin  func(*journal.Saved)
	resume func(*Memory, task.RunID) (journal.Entry, error)
	add    func(journal.Entry, journal.Record)
	forget func(journal.Entry)
	keep   bool // what is left of a run that begins
	alias  bool // what Begin is given
}

func (b *broken) Next(testing.TB) journal.Journal { return b }

func (b *broken) Runs() ([]journal.Saved, error) {
	all, err := b.Memory.Runs()
	if b.runs != nil {
		return b.runs(all)
	}
	return all, err
}

func (b *broken) Begin(s journal.Saved) journal.Entry {
	if b.begin != nil {
		b.begin(&s)
	}
	if e, err := b.Memory.Resume(s.Run); b.keep && err == nil {
		return e
	}
	e := b.Memory.Begin(s)
	if b.alias {
		b.Memory.runs[s.Run].saved.Definition = s.Definition
	}
	return &brokenEntry{e, b}
}

func (b *broken) Resume(id task.RunID) (journal.Entry, error) {
	if b.resume != nil {
		return b.resume(&b.Memory, id)
	}
	e, err := b.Memory.Resume(id)
	return &brokenEntry{e, b}, err
}

type brokenEntry struct {
	journal.Entry
	b *broken
}

func (e *brokenEntry) Add(r journal.Record) {
	if e.b.add != nil {
		e.b.add(e.Entry, r)
		return
	}
	e.Entry.Add(r)
}

func (e *brokenEntry) Forget() {
	if e.b.forget != nil {
		e.b.forget(e.Entry)
		return
	}
	e.Entry.Forget()
}

// once returns what is left to the first process that asks, and then nothing.
func once() func([]journal.Saved) ([]journal.Saved, error) {
	asked := false
	return func(all []journal.Saved) ([]journal.Saved, error) {
		if asked {
			return nil, nil
		}
		asked = true
		return all, nil
	}
}

// besides loses records of one kind.
func besides[R journal.Record]() func(journal.Entry, journal.Record) {
	return func(e journal.Entry, r journal.Record) {
		if _, lost := r.(R); !lost {
			e.Add(r)
		}
	}
}

// backward adds all records anew, the last one first.
func backward() func(journal.Entry, journal.Record) {
	var all []journal.Record
	return func(e journal.Entry, r journal.Record) {
		all = append(all, r)
		for _, r := range slices.Backward(all) {
			e.Add(r)
		}
	}
}
