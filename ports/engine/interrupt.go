package engine

import (
	"context"
	"encoding/json"
	"time"
)

// InterruptionVariable is the environment variable that has the path of the
// interruption file. A task of an engine without Interrupters does not have it,
// and neither payload nor plugins can set it.
const InterruptionVariable = "TASKCLUSTER_INTERRUPTION_FILE"

// Interrupter is implemented by sandboxes that can tell the task of an
// interruption.
type Interrupter interface {
	// Interrupt has the interruption file say i, which is there from then on.
	// The task sees the file complete or not at all, and can read it whatever
	// user it runs as. Where i is to stop the task, and none before was,
	// SIGTERM is then sent to the processes of the command that is executed,
	// but not to those that they have started, and no further command is
	// executed. A Kill that follows leaves no time to end.
	//
	// It may take as long as ctx allows, and returns what kept the file from
	// being written; the signal is sent all the same. It does nothing once the
	// sandbox has terminated.
	Interrupt(ctx context.Context, i Interruption) error
}

// Interruption is what a task is told of an interruption.
type Interruption struct {
	Cause    string    // such as "spot interruption"
	Deadline time.Time // when the task is killed; zero if it may come to its end
	Stop     bool      // the task is to end now, with what it can save until Deadline
}

// File returns the content of the interruption file: a JSON object.
func (i Interruption) File() []byte {
	said := struct {
		Cause    string `json:"cause"`
		Deadline string `json:"deadline,omitempty"`
	}{Cause: i.Cause}
	if !i.Deadline.IsZero() {
		said.Deadline = i.Deadline.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	b, _ := json.Marshal(said) // strings never fail
	return append(b, '\n')
}
