// Package run models the life of one run, from claim to disposal, as seen by
// the worker that holds the claim. It performs no I/O and reads no clock.
//
// A run that goes well visits every state but Salvaging, in order:
//
//	Claimed → Preparing → Building → Running → Collecting → Finishing →
//	Reporting → Disposing → Done
//
// Three events leave that path. NotStarted fails a run whose sandbox cannot be
// started, and goes on with Finishing. Faulted, legal until Reporting, goes
// straight to Reporting with an exception: the queue accepts artifacts after an
// exception but not after a completed or failed run, so a worker in trouble
// reports first and salvages what it can afterwards. ClaimLost, legal until
// Disposing, skips reporting altogether: somebody else has resolved the run.
package run

import "fmt"

// State is a stage in the life of a run.
type State uint8

// The states of a run.
const (
	Claimed    State = iota // the queue granted the claim; nothing is held yet
	Preparing               // the engine and the plugins acquire resources
	Building                // plugins configure the sandbox builder
	Running                 // the sandbox executes the task
	Collecting              // plugins read the result set
	Finishing               // the task log is closed; plugins upload it
	Reporting               // the resolution is being sent to the queue
	Salvaging               // best-effort uploads after an exception
	Disposing               // everything acquired is being released
	Done                    // terminal
)

var stateNames = [...]string{
	"claimed", "preparing", "building", "running", "collecting",
	"finishing", "reporting", "salvaging", "disposing", "done",
}

// String returns the name of the state in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Outcome is what became of a run. A greater outcome is a graver one.
type Outcome uint8

// The outcomes of a run. An Abandoned run is the only one never reported.
const (
	Undecided Outcome = iota
	Completed
	Failed
	Exception
	Abandoned
)

var outcomeNames = [...]string{"undecided", "completed", "failed", "exception", "abandoned"}

// String returns the name of the outcome, which is the queue's state of a run
// for the three outcomes that are reported.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Reason says why a run was resolved as an exception.
type Reason string

// The reasons the queue accepts from a worker.
const (
	WorkerShutdown      Reason = "worker-shutdown"
	MalformedPayload    Reason = "malformed-payload"
	ResourceUnavailable Reason = "resource-unavailable"
	InternalError       Reason = "internal-error"
	IntermittentTask    Reason = "intermittent-task"
)

// Resolution is an outcome, with its reason if it is an exception.
type Resolution struct {
	Outcome Outcome
	Reason  Reason
}

// String returns the outcome, and the reason if there is one.
func (r Resolution) String() string {
	if r.Reason == "" {
		return r.Outcome.String()
	}
	return r.Outcome.String() + " (" + string(r.Reason) + ")"
}

// A Run is the state of one run. It is a value: events yield new Runs. The zero
// Run has just been claimed.
type Run struct {
	state      State
	resolution Resolution
}

// State returns the state of the run.
func (r Run) State() State { return r.state }

// Resolution returns what has been decided so far. It is final from Reporting
// on, unless the claim is lost.
func (r Run) Resolution() Resolution { return r.resolution }

// After returns the run as e leaves it, or a [TransitionError] if e is not
// legal in its state.
func (r Run) After(e Event) (Run, error) {
	next, err := e.after(r)
	if err != nil {
		return r, err
	}
	return next, nil
}

// An Event is something that happened to a run. The events are those declared
// in this package.
type Event interface{ after(Run) (Run, error) }

// Begun reports that the worker started work on the claim.
type Begun struct{}

func (e Begun) after(r Run) (Run, error) { return r.step(e, Claimed, Preparing) }

// Resumed reports that an earlier process of the worker had taken the run into a
// state: Running, where its sandbox goes on; or Reporting, with the resolution
// that was to be reported.
type Resumed struct {
	State      State
	Resolution Resolution
}

func (e Resumed) after(r Run) (Run, error) {
	decided := e.Resolution.Outcome >= Completed && e.Resolution.Outcome <= Exception &&
		(e.Resolution.Outcome == Exception) == (e.Resolution.Reason != "")
	legal := e.State == Running && e.Resolution == Resolution{} || e.State == Reporting && decided
	if r.state != Claimed || !legal {
		return r, &TransitionError{r.state, e}
	}
	return Run{e.State, e.Resolution}, nil
}

// Prepared reports that the sandbox builder and the task plugins exist.
type Prepared struct{}

func (e Prepared) after(r Run) (Run, error) { return r.step(e, Preparing, Building) }

// Started reports that the sandbox is executing the task.
type Started struct{}

func (e Started) after(r Run) (Run, error) { return r.step(e, Building, Running) }

// NotStarted reports that the task failed before its sandbox could start, for
// want of a mount say.
type NotStarted struct{}

func (e NotStarted) after(r Run) (Run, error) {
	if r.state != Preparing && r.state != Building {
		return r, &TransitionError{r.state, e}
	}
	return r.judge(false).step(e, r.state, Finishing)
}

// Exited reports that the sandbox terminated.
type Exited struct{ Success bool }

func (e Exited) after(r Run) (Run, error) {
	return r.judge(e.Success).step(e, Running, Collecting)
}

// Collected reports that the plugins are done with the result set. One that
// finds it wanting, for lack of a required artifact say, fails the run.
type Collected struct{ Success bool }

func (e Collected) after(r Run) (Run, error) {
	return r.judge(e.Success).step(e, Collecting, Finishing)
}

// Finished reports that the task log is closed and stored.
type Finished struct{}

func (e Finished) after(r Run) (Run, error) {
	if r.resolution.Outcome == Undecided {
		r.resolution.Outcome = Completed
	}
	return r.step(e, Finishing, Reporting)
}

// Faulted reports that the run cannot go on, through no verdict on the task.
// It takes a reason.
type Faulted struct{ Reason Reason }

func (e Faulted) after(r Run) (Run, error) {
	if r.state >= Reporting || e.Reason == "" {
		return r, &TransitionError{r.state, e}
	}
	return Run{Reporting, Resolution{Exception, e.Reason}}, nil
}

// ClaimLost reports that the queue no longer holds the run for this worker: it
// was canceled, its deadline passed, or the claim expired.
type ClaimLost struct{}

func (e ClaimLost) after(r Run) (Run, error) {
	if r.state >= Disposing {
		return r, &TransitionError{r.state, e}
	}
	return Run{Disposing, Resolution{Outcome: Abandoned}}, nil
}

// Reported reports that the queue accepted the resolution.
type Reported struct{}

func (e Reported) after(r Run) (Run, error) {
	if r.resolution.Outcome == Exception {
		return r.step(e, Reporting, Salvaging)
	}
	return r.step(e, Reporting, Disposing)
}

// Salvaged reports that best-effort uploads are over, whether they succeeded or not.
type Salvaged struct{}

func (e Salvaged) after(r Run) (Run, error) { return r.step(e, Salvaging, Disposing) }

// Disposed reports that nothing acquired for the run is held any more.
type Disposed struct{}

func (e Disposed) after(r Run) (Run, error) { return r.step(e, Disposing, Done) }

// step moves r, which may carry a new resolution, from one state to the next.
func (r Run) step(e Event, from, to State) (Run, error) {
	if r.state != from {
		return r, &TransitionError{r.state, e}
	}
	r.state = to
	return r, nil
}

func (r Run) judge(success bool) Run {
	if !success {
		r.resolution.Outcome = Failed
	}
	return r
}

// A TransitionError reports an event that is not legal in a state. It is always
// a bug in the caller.
type TransitionError struct {
	State State
	Event Event
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("run: %T while %v", e.Event, e.State)
}
