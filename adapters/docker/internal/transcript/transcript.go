// Package transcript is a file in which the first process of a container keeps
// what the commands of a task print, and what becomes of them, in one order. A
// worker reads it while it grows, and so does the next one, from wherever the
// last one was.
//
// The file begins with a header of which each field has one writer. Frames
// follow, to which the first process alone appends. A task may be able to write
// to the file, as it may have the same user as the first process: what is read
// can be anything.
package transcript

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Spec is what the first process is to do.
type Spec struct {
	Commands [][]string
	TTY      bool // whether commands have a terminal

	// Patience is how long the task goes on without a worker.
	Patience time.Duration

	// Backlog is how many bytes there may be that no worker has logged yet. There
	// is no less room than for two pieces that are forgotten at a time, and no
	// limit with 0.
	Backlog int64 `json:",omitempty"`

	// Bound says that the task ends with the worker that has made the file, and
	// that has it locked for as long as it lives.
	Bound bool `json:",omitempty"`
}

// Event is something that happened to a command.
type Event struct {
	Executing *int      `json:"executing,omitempty"` // the index of the command that begins
	Executed  *Executed `json:"executed,omitempty"`  // one that succeeded, with another to follow
}

// Executed is how a command ended.
type Executed struct {
	Index              int
	Failed             string `json:",omitempty"` // why it could not be executed; empty if it was
	ExitCode           int    // as a shell has it: 128 and the signal where one ended the command
	User, Kernel, Wall time.Duration
	MaxRSS             int64 // bytes, of its largest process
}

// Done is how the task ended.
type Done struct {
	Last     Executed // the last command that was executed
	Total    Executed // times and memory of all
	Signaled bool     // the first process got SIGTERM, to pass on to the command
	Stopped  bool     `json:",omitempty"` // it got SIGTERM, so that commands were left out
	Dropped  int64    `json:",omitempty"` // bytes of output that could not be stored
	Cause    string   `json:",omitempty"` // why
}

// The header.
const (
	magic = "tctrans2"

	goAt        = 8  // byte: the first process may go ahead
	stoppedAt   = 9  // byte: a worker has told the task to stop
	killedAt    = 10 // byte: a worker has killed the task
	beatAt      = 16 // 8 bytes that change for as long as a worker is there
	forgottenAt = 32 // 8 bytes: the offset before which all is logged, and there are no frames any more
	framesAt    = 40 // 8 bytes: the offset of the first frame
	specSizeAt  = 48 // 4 bytes
	doneSizeAt  = 52 // 4 bytes; 0 while the task goes on
	doneAt      = 64 // room for Done, so that a full disk does not keep it out
	specAt      = 4096
)

// mostDone is how long Done can be.
const mostDone = specAt - doneAt

// Frames.
const (
	frameHeader = 5 // kind, and 4 bytes of size
	outputKind  = 'o'
	eventKind   = 'e'

	// MostOutput is how much output a frame has at most.
	MostOutput = 64 << 10
	mostFrame  = frameHeader + MostOutput
)

var order = binary.LittleEndian

// ErrDamaged is what becomes of a transcript that somebody else has written to.
var ErrDamaged = errors.New("the transcript is damaged")

func parse(what string, raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
	}
	return nil
}
