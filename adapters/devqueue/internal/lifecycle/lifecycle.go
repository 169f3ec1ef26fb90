// Package lifecycle is the state machine of a task on a queue: its runs, how
// each of them is claimed, resolved and retried. It is pure: it reads no clock
// and performs no I/O.
package lifecycle

import (
	"slices"
	"time"
)

// State is the state of a task, which is the state of its last run.
type State string

// The states of a task. Unscheduled is no state of a run: it says that a task
// has no runs yet.
const (
	Unscheduled State = "unscheduled"
	Pending     State = "pending"
	Running     State = "running"
	Completed   State = "completed"
	Failed      State = "failed"
	Exception   State = "exception"
)

// Resolved reports whether s is final for a run.
func (s State) Resolved() bool { return s == Completed || s == Failed || s == Exception }

// Reasons for creating a run.
const (
	scheduled     = "scheduled"
	retry         = "retry"
	taskRetry     = "task-retry"
	rerun         = "rerun"
	onlyToResolve = "exception"
)

// Reasons for resolving a run as exception that mean something here: those
// that the queue itself gives, and those of a worker that lead to a retry.
const (
	Canceled         = "canceled"
	DeadlineExceeded = "deadline-exceeded"
	claimExpired     = "claim-expired"
	workerShutdown   = "worker-shutdown"
	intermittent     = "intermittent-task"
)

// MaxRuns is how many runs a task may have.
const MaxRuns = 50

// Worker names the worker that holds a run.
type Worker struct {
	Group string
	ID    string
}

// Run is one attempt at a task. Times that have not come are zero.
type Run struct {
	State          State     `json:"state"`
	ReasonCreated  string    `json:"reasonCreated"`
	ReasonResolved string    `json:"reasonResolved,omitempty"`
	WorkerGroup    string    `json:"workerGroup,omitempty"`
	WorkerID       string    `json:"workerId,omitempty"`
	TakenUntil     time.Time `json:"takenUntil,omitzero"`
	Scheduled      time.Time `json:"scheduled,omitzero"`
	Started        time.Time `json:"started,omitzero"`
	Resolved       time.Time `json:"resolved,omitzero"`
}

// Status is all that changes about a task. It is a value: every verb returns
// the status that follows and leaves its receiver as it was.
type Status struct {
	RetriesLeft int   `json:"retriesLeft"`
	Runs        []Run `json:"runs"`
}

// New returns the status of a task that has just been defined.
func New(retries int) Status { return Status{RetriesLeft: retries} }

// State returns the state of the last run.
func (s Status) State() State {
	if len(s.Runs) == 0 {
		return Unscheduled
	}
	return s.Runs[len(s.Runs)-1].State
}

// Resolved reports whether the last run is resolved.
func (s Status) Resolved() bool { return s.State().Resolved() }

// Last returns the number of the last run, -1 when there is none.
func (s Status) Last() int { return len(s.Runs) - 1 }

// is reports whether run is the last run and in the given state.
func (s Status) is(run int, state State) bool {
	return run >= 0 && run == s.Last() && s.State() == state
}

// with returns s with its last run replaced.
func (s Status) with(last Run) Status {
	s.Runs = append(slices.Clone(s.Runs[:s.Last()]), last)
	return s
}

// plus returns s with one more run.
func (s Status) plus(r Run) Status {
	s.Runs = append(slices.Clone(s.Runs), r)
	return s
}

// Schedule gives an unscheduled task its first run. It reports false, and
// changes nothing, for any other task.
func (s Status) Schedule(now time.Time) (Status, bool) {
	if s.State() != Unscheduled {
		return s, false
	}
	return s.plus(Run{State: Pending, ReasonCreated: scheduled, Scheduled: now}), true
}

// Claim hands a pending run to a worker until the given time.
func (s Status) Claim(run int, by Worker, until, now time.Time) (Status, bool) {
	if !s.is(run, Pending) {
		return s, false
	}
	r := s.Runs[run]
	r.State, r.WorkerGroup, r.WorkerID, r.TakenUntil, r.Started = Running, by.Group, by.ID, until, now
	return s.with(r), true
}

// Reclaim prolongs the claim of a running run. A claim is never shortened.
func (s Status) Reclaim(run int, until time.Time) (Status, bool) {
	if !s.is(run, Running) {
		return s, false
	}
	r := s.Runs[run]
	if until.After(r.TakenUntil) {
		r.TakenUntil = until
	}
	return s.with(r), true
}

// Complete resolves a running run as completed.
func (s Status) Complete(run int, now time.Time) (Status, bool) {
	return s.resolve(run, Completed, string(Completed), "", now)
}

// Fail resolves a running run as failed.
func (s Status) Fail(run int, now time.Time) (Status, bool) {
	return s.resolve(run, Failed, string(Failed), "", now)
}

// Except resolves a running run as exception. Some reasons add a pending run
// while retries are left.
func (s Status) Except(run int, reason string, now time.Time) (Status, bool) {
	var again string
	switch reason {
	case workerShutdown:
		again = retry
	case intermittent:
		again = taskRetry
	}
	return s.resolve(run, Exception, reason, again, now)
}

// Expire resolves a running run whose claim was good until the given time and
// no longer, and adds a pending run while retries are left. It changes nothing
// when the claim was prolonged since.
func (s Status) Expire(run int, until, now time.Time) (Status, bool) {
	if !s.is(run, Running) || !s.Runs[run].TakenUntil.Equal(until) || now.Before(until) {
		return s, false
	}
	return s.resolve(run, Exception, claimExpired, retry, now)
}

func (s Status) resolve(run int, state State, reason, again string, now time.Time) (Status, bool) {
	if !s.is(run, Running) {
		return s, false
	}
	r := s.Runs[run]
	r.State, r.ReasonResolved, r.Resolved = state, reason, now
	s = s.with(r)
	if again != "" && s.RetriesLeft > 0 {
		s.RetriesLeft--
		s = s.plus(Run{State: Pending, ReasonCreated: again, Scheduled: now})
	}
	return s, true
}

// Cancel resolves a task that is not resolved yet as exception. A task without
// runs gets one to hold the resolution.
func (s Status) Cancel(reason string, now time.Time) (Status, bool) {
	switch {
	case s.Resolved():
		return s, false
	case s.State() == Unscheduled:
		return s.plus(Run{
			State: Exception, ReasonCreated: onlyToResolve, ReasonResolved: reason, Scheduled: now, Resolved: now,
		}), true
	}
	r := s.Runs[s.Last()]
	r.State, r.ReasonResolved, r.Resolved = Exception, reason, now
	return s.with(r), true
}

// Again adds a pending run to a task that is resolved or unscheduled, with all
// its retries anew. It changes nothing for pending and running tasks, nor
// beyond MaxRuns runs.
func (s Status) Again(retries int, now time.Time) (Status, bool) {
	if state := s.State(); state == Pending || state == Running || len(s.Runs) >= MaxRuns {
		return s, false
	}
	s.RetriesLeft = min(retries, MaxRuns-len(s.Runs)-1)
	return s.plus(Run{State: Pending, ReasonCreated: rerun, Scheduled: now}), true
}
