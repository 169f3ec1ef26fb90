// Package journal is the port through which a worker's next process learns what
// runs the last one was at, however that ended.
package journal

import (
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Journal keeps what has to outlive the worker's process of each run. Its
// methods are safe for concurrent use.
//
// Storage that cannot be written costs the next process some of what it could
// have known, but never a run: implementations log and count it, and go on.
// Methods that return no error thus always succeed for the caller.
type Journal interface {
	// Runs returns what earlier processes have left, in no particular order.
	// It is called before the first Begin and Resume.
	//
	// Errors: what kept the journal, or the entry of any run, from being read
	// this time. All entries are then as they were, for a later process to read.
	// A run whose entry is damaged from the start is left out, and one of which
	// the end is damaged is returned without it.
	Runs() ([]Saved, error)

	// Begin starts the entry of a run that was claimed, in place of any that
	// is left of it. Once it returns, s survives a crash of the host. It blocks
	// as long as the storage does.
	Begin(s Saved) Entry

	// Resume goes on with an entry of an earlier process.
	//
	// Errors: fs.ErrNotExist, if there is none; any other leaves the entry as
	// it was, for a later process to read.
	Resume(id task.RunID) (Entry, error)
}

// Entry is what the journal has of one run. Its methods are safe for concurrent
// use.
type Entry interface {
	// Add adds r, which is called before the step that it describes. Once it
	// returns, r survives the process. [Started] and [Resolving] survive a
	// crash of the host, too, and block as long as the storage does.
	Add(r Record)

	// Forget removes the entry, since the run is over. It is idempotent, and
	// what is added afterwards is lost. A crash of the host may bring the entry
	// back.
	Forget()
}
