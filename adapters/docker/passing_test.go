package docker

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// What Docker 20.10 says of containers while it ends and begins, and what it says
// of those that no attempt will start.
func TestFailuresThatPass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{errors.New("failed to update store for object type *libnetwork.endpoint: open : no such file or directory"), true},
		{fmt.Errorf("cannot join network of a non running container: x: %w", errdefs.ErrConflict), true},
		{fmt.Errorf("network x not found: %w", errdefs.ErrNotFound), true},
		{fmt.Errorf("connection error: transport is closing: %w", errdefs.ErrUnavailable), true},
		{fmt.Errorf("write: %w", syscall.ENOSPC), true},
		{context.DeadlineExceeded, true},
		{fmt.Errorf("%s: %w", restWasGone, errdefs.ErrInvalidArgument), true},
		{fmt.Errorf("no such user: %w", errdefs.ErrInvalidArgument), false},
		{fault.Malformedf("there is no command"), false},
		{errors.New(`could not select device driver "nvidia" with capabilities: [[gpu]]`), false},
		{context.Canceled, false},
	} {
		if got := passing(classify(tt.err, "the container could not be started")); got != tt.want {
			t.Errorf("%v passes: %v, want %v", tt.err, got, tt.want)
		}
	}
}

const restWasGone = "OCI runtime create failed: runc create failed: unable to create new parent process: " +
	"namespace path: lstat /proc/84630/ns/net: no such file or directory"

// What a task asks for and cannot have is a verdict on the task, unlike anything
// that has to do with the daemon.
func TestContainersThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fmt.Errorf(`exec: "/.taskcluster/first": permission denied: %w`, errdefs.ErrInvalidArgument), true},
		{errors.New("unable to find user nobody-knows: no matching entries in passwd file"), true},
		{fmt.Errorf("%s: %w", restWasGone, errdefs.ErrInvalidArgument), false},
		{fmt.Errorf("connection error: transport is closing: %w", errdefs.ErrUnavailable), false},
	} {
		if got := refused(tt.err); got != tt.want {
			t.Errorf("%v is a verdict on the task: %v, want %v", tt.err, got, tt.want)
		}
	}
}
