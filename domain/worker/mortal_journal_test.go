package worker_test

import (
	"sync"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
)

// mortalJournal is a journal as a mortal process has it.
type mortalJournal struct {
	journal.Journal
	l *life
}

func (j mortalJournal) Begin(s journal.Saved) journal.Entry {
	if !j.l.does("begin journal") {
		return mortalEntry{nil, j.l}
	}
	return mortalEntry{j.Journal.Begin(s), j.l}
}

func (j mortalJournal) Resume(id task.RunID) (journal.Entry, error) {
	e, err := j.Journal.Resume(id)
	return mortalEntry{e, j.l}, err
}

type mortalEntry struct {
	journal.Entry
	l *life
}

func (e mortalEntry) Add(r journal.Record) {
	if e.l.does("add to journal") {
		e.Entry.Add(r)
	}
}

func (e mortalEntry) Forget() {
	if e.l.does("forget") {
		e.Entry.Forget()
	}
}

// hostJournal is a journal of which a crash of the host leaves as little as it may:
// what survives that, of all runs that ever were.
type hostJournal struct {
	*journaltest.Memory

	mu      sync.Mutex
	durable map[task.RunID]journal.Saved
}

func newHostJournal() *hostJournal {
	return &hostJournal{Memory: new(journaltest.Memory), durable: map[task.RunID]journal.Saved{}}
}

// crash returns what there is of the journal afterwards.
func (j *hostJournal) crash() *hostJournal {
	after := newHostJournal()
	for _, s := range j.durable {
		after.Begin(s)
	}
	return after
}

func (j *hostJournal) Begin(s journal.Saved) journal.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.durable[s.Run] = s
	return &hostEntry{j.Memory.Begin(s), j, s}
}

func (j *hostJournal) Resume(id task.RunID) (journal.Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, err := j.Memory.Resume(id)
	return &hostEntry{e, j, j.durable[id]}, err
}

type hostEntry struct {
	journal.Entry
	j     *hostJournal
	saved journal.Saved
}

func (e *hostEntry) Add(r journal.Record) {
	e.Entry.Add(r)
	e.j.mu.Lock()
	defer e.j.mu.Unlock()
	e.saved = e.saved.After(r)
	switch r.(type) {
	case journal.Started, journal.Resolving:
		e.j.durable[e.saved.Run] = e.saved
	}
}
