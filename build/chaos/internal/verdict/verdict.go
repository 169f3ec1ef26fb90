// Package verdict judges what became of tasks: whether each was resolved once
// and rightly, and whether its logs and artifacts are whole. It knows nothing of
// how they were executed and what was in their way.
package verdict

import (
	"fmt"
	"time"
)

// Expectation is what must become of a task, whatever happens to the worker.
type Expectation struct {
	State  string // of the last run
	Reason string // for which the last run was resolved

	// Retried are the reasons for which earlier runs may have been resolved,
	// besides those that a worker's death and a lost claim have.
	Retried []string

	// Lines is how many numbered lines the task prints. All of them must be in
	// the log of a last run that is completed, or failed by itself.
	Lines int

	// Cut says that the task is ended in the middle of what it prints.
	Cut bool

	// Says is what the log of the last run must contain, if it is not empty.
	Says string

	// NoLog says that the last run need not have a log, as nobody executes it
	// or nobody may report on it.
	NoLog bool

	// Artifacts are the SHA-256 sums of what the last run must have stored,
	// besides logs, by name.
	Artifacts map[string]string
}

// Task is a task and what became of it.
type Task struct {
	ID   string
	Kind string
	Want Expectation
	Runs []Run
}

// Run is one run of a task.
type Run struct {
	State    string
	Reason   string    // for which it was resolved
	Started  time.Time // when it was claimed; zero if it never was
	Resolved time.Time

	// HasLog says whether there is a log, and Log is what it says.
	HasLog bool
	Log    string

	// Artifacts are the SHA-256 sums of what it has stored, besides logs.
	Artifacts map[string]string

	// Begun and Ended are how often its commands began and came to their end,
	// by another witness than the log; -1 if there is none.
	Begun, Ended int

	// Cramped says that the worker's disk was full meanwhile: logs may then
	// lack lines, if they say so.
	Cramped bool
}

// Problem is one law that was broken.
type Problem struct {
	Task string
	Kind string
	Run  int // -1 if it is about the task as a whole
	What string
}

// String returns the problem in one line.
func (p Problem) String() string {
	if p.Run < 0 {
		return fmt.Sprintf("%s (%s): %s", p.Task, p.Kind, p.What)
	}
	return fmt.Sprintf("%s/%d (%s): %s", p.Task, p.Run, p.Kind, p.What)
}

// Judge returns the laws that the tasks break.
func Judge(tasks []Task) []Problem {
	var problems []Problem
	for _, t := range tasks {
		for _, law := range []func(Task, func(int, string, ...any)){resolution, retries, execution, logs, artifacts} {
			law(t, func(run int, format string, args ...any) {
				problems = append(problems, Problem{t.ID, t.Kind, run, fmt.Sprintf(format, args...)})
			})
		}
	}
	return problems
}

// Reasons of which a task's author hears nothing but that there is another run.
const (
	expired  = "claim-expired"
	shutdown = "worker-shutdown"
)
