package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Error is the answer of a service that did not do what it was asked.
type Error struct {
	Op      string // the call, such as "queue.claimWork"
	Status  int    // of the HTTP response
	Code    string // the service's, such as "RequestConflict"; may be empty
	Message string // the service's, of one or more lines

	retryAfter time.Duration
}

// Error returns the call, the status and the first line of the message.
func (e *Error) Error() string {
	code := e.Code
	if code == "" {
		code = http.StatusText(e.Status)
	}
	s := fmt.Sprintf("%s: %d %s", e.Op, e.Status, code)
	if e.Message != "" {
		s += ": " + e.firstLine()
	}
	return s
}

func (e *Error) firstLine() string {
	line, _, _ := strings.Cut(e.Message, "\n")
	return line
}

// CredentialsError says that a service refuses the credentials of a call, or
// that they do not allow it.
type CredentialsError struct {
	RootURL  string
	ClientID string
	Err      *Error
}

// Error returns the deployment, the client, and what the service said.
func (e *CredentialsError) Error() string {
	client := fmt.Sprintf("client %q", e.ClientID)
	if e.ClientID == "" {
		client = "a client without credentials"
	}
	return fmt.Sprintf("%s refuses %s: %s", e.RootURL, client, e.Err)
}

// Unwrap returns the answer of the service.
func (e *CredentialsError) Unwrap() error { return e.Err }

// UnreachableError says that a call got no answer, or no whole one. The service
// may or may not have done what it was asked.
type UnreachableError struct {
	URL string // the root URL of the deployment, or that of a bucket
	Err error
}

// Error returns what is out of reach and why.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach %s: %v", e.URL, e.Err)
}

// Unwrap returns what kept it out of reach.
func (e *UnreachableError) Unwrap() error { return e.Err }

// ErrNotFound is returned if what was asked for does not exist.
var ErrNotFound = errors.New("taskcluster: not found")

// errTimeout is the cause of a call's end when its time is up.
var errTimeout = errors.New("no answer in time")

// status returns the HTTP status of the answer that err is about, or 0.
func status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// passing is an error of which the caller knows that it may pass.
type passing struct{ error }

// Unwrap returns the error.
func (p passing) Unwrap() error { return p.error }

// refusesCredentials reports whether err is a service's that does not accept the
// credentials of the call.
func refusesCredentials(err error) bool {
	s := status(err)
	return s == http.StatusUnauthorized || s == http.StatusForbidden
}

// transient reports whether the call that ended in err may succeed if repeated.
func transient(err error) bool {
	if _, ok := errors.AsType[passing](err); ok {
		return true
	}
	if _, ok := errors.AsType[*UnreachableError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*transferError](err); ok {
		return true
	}
	s := status(err)
	return s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout
}

// lost returns err as ErrClaimLost if it says that the queue no longer
// recognizes a claim that lasts until takenUntil.
func lost(err error, takenUntil time.Time) error {
	switch status(err) {
	case http.StatusConflict, http.StatusNotFound:
	case http.StatusUnauthorized, http.StatusForbidden:
		// Credentials expire with the claim, so the queue does not get to
		// saying what it thinks of the claim itself.
		if time.Now().Before(takenUntil) {
			return err
		}
	default:
		return err
	}
	return fmt.Errorf("%w: %w", queue.ErrClaimLost, err)
}

// unreachable classifies an error of sending op to root or receiving its
// answer, within call, which was made from ctx.
func unreachable(ctx, call context.Context, root, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	if call.Err() != nil {
		err = context.Cause(call)
	}
	// The URL that http adds says no more than the operation does, and may
	// hold a signature.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return &UnreachableError{URL: root, Err: fmt.Errorf("%s: %w", op, err)}
}
