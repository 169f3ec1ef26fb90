// Package fault classifies errors by who has to act on them.
//
// A fault has two audiences. Its message is for the author of the task and goes
// to the task log; the error it wraps is for the operator of the worker and
// goes nowhere else. Errors are classified once, where they are understood
// best; whoever passes them on only wraps them.
package fault

import (
	"errors"
	"fmt"

	"github.com/taskcluster/taskcluster-worker/domain/run"
)

// Kind says whose fault an error is.
type Kind uint8

// The kinds of fault. An error that is not a fault is Internal.
const (
	Internal     Kind = iota // the worker: a bug, or a broken host
	Malformed                // the task: another run would end the same way
	Unavailable              // a dependency: another run may well succeed
	Intermittent             // the task said so itself
	Shutdown                 // the host is going away
	Failure                  // the task failed, which is a verdict and no exception
)

// Resolution returns what a fault of kind k makes of a run.
func (k Kind) Resolution() run.Resolution {
	r := run.Resolution{Outcome: run.Exception}
	switch k {
	case Malformed:
		r.Reason = run.MalformedPayload
	case Unavailable:
		r.Reason = run.ResourceUnavailable
	case Intermittent:
		r.Reason = run.IntermittentTask
	case Shutdown:
		r.Reason = run.WorkerShutdown
	case Failure:
		r.Outcome = run.Failed
	default:
		r.Reason = run.InternalError
	}
	return r
}

// Error is a classified error.
type Error struct {
	Kind    Kind
	Message string // for the task log: what went wrong and how to mend it
	Err     error  // for the operator; may be nil
}

// Error returns the message, and the error behind it if there is one.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the error behind the fault.
func (e *Error) Unwrap() error { return e.Err }

// Malformedf reports that the task definition cannot be honored.
func Malformedf(format string, args ...any) error {
	return &Error{Kind: Malformed, Message: fmt.Sprintf(format, args...)}
}

// Unavailablef reports that err kept a resource named by the task out of reach.
func Unavailablef(err error, format string, args ...any) error {
	return &Error{Kind: Unavailable, Message: fmt.Sprintf(format, args...), Err: err}
}

// Failuref reports that the task has failed by its own doing. err is for the
// operator and may be nil.
func Failuref(err error, format string, args ...any) error {
	return &Error{Kind: Failure, Message: fmt.Sprintf(format, args...), Err: err}
}

// Intermittentf reports that the task asked for another run.
func Intermittentf(format string, args ...any) error {
	return &Error{Kind: Intermittent, Message: fmt.Sprintf(format, args...)}
}

// Shutdownf reports that the worker cannot see the run through.
func Shutdownf(format string, args ...any) error {
	return &Error{Kind: Shutdown, Message: fmt.Sprintf(format, args...)}
}

// Classify returns the fault in err's chain, or wraps err as Internal if there is none.
// It returns nil if err is nil.
func Classify(err error) *Error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	return &Error{Kind: Internal, Message: "internal worker error", Err: err}
}
