package api

import (
	"fmt"
	"net/http"
)

// Error is an error that a client is told about, with one of Taskcluster's
// codes.
type Error struct {
	Code    string
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// status returns the HTTP status of the error's code.
func (e *Error) status() int {
	switch e.Code {
	case "MalformedPayload", "InvalidRequestArguments", "InputValidationError", "InputError", "NoMatchingMethod":
		return http.StatusBadRequest
	case "AuthenticationFailed":
		return http.StatusUnauthorized
	case "InsufficientScopes":
		return http.StatusForbidden
	case "ResourceNotFound":
		return http.StatusNotFound
	case "RequestConflict":
		return http.StatusConflict
	case "InputTooLarge":
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

func newError(code, format string, args []any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// InputError says that the input makes no sense: 400.
func InputError(format string, args ...any) *Error { return newError("InputError", format, args) }

// InvalidArguments says that a parameter in the URL is malformed: 400.
func InvalidArguments(format string, args ...any) *Error {
	return newError("InvalidRequestArguments", format, args)
}

// NotFound says that there is no such thing: 404.
func NotFound(format string, args ...any) *Error { return newError("ResourceNotFound", format, args) }

// Conflict says that the call contradicts what has happened before: 409.
func Conflict(format string, args ...any) *Error { return newError("RequestConflict", format, args) }
