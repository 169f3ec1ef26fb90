package supervisor

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// leaveKeys keeps keys from the task that are not its own: it gives the calling
// thread, and what that starts, an empty session keyring in place of the worker's,
// and clears the keyrings that the kernel has for the task's user, in which an
// earlier task with the same user may have left something.
func (t *task) leaveKeys() error {
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		return withoutKeys(err)
	}
	if !t.setup.Switch {
		return nil // the user is the operator's
	}
	// The user may not make room for it, unlike this thread.
	id, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, int(t.setup.UID), unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if err == nil {
		_, err = unix.KeyctlInt(unix.KEYCTL_CLEAR, id, 0, 0, 0)
	}
	if err := withoutKeys(err); err != nil {
		return fmt.Errorf("clear the persistent keyring: %w", err)
	}
	cleared := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread is the user's, and ends with this
		cleared <- clearKeyrings(t.setup.UID)
	}()
	return <-cleared
}

// clearKeyrings makes the calling thread one of a user, whose keyrings it clears.
func clearKeyrings(uid uint32) error {
	id := uintptr(uid)
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); err != 0 {
		return fmt.Errorf("become the user of the task: %w", err)
	}
	for _, keyring := range []int{unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING} {
		// The kernel makes one that is not there, for which there may be no room.
		_, err := unix.KeyctlInt(unix.KEYCTL_CLEAR, keyring, 0, 0, 0)
		if err := withoutKeys(err); err != nil && !errors.Is(err, unix.EDQUOT) {
			return fmt.Errorf("clear keyring %d of the user: %w", keyring, err)
		}
	}
	return nil
}

// withoutKeys returns an error unless it says that there are no keyrings, or none
// for this process and what it starts: a container may keep them from both.
func withoutKeys(err error) error {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
