package jail

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Identity is a user whose rights to files count.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
}

// run runs f on a thread with the identity's rights to files, which takes away
// the capabilities that overrule them, too. The nil Identity changes nothing.
func (i *Identity) run(f func() error) error {
	if i == nil {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		mine, err := threadGroups()
		if err == nil {
			err = i.assume(f)
			// A thread that cannot be restored is not unlocked, and ends with
			// the goroutine.
			if restore(mine) == nil {
				runtime.UnlockOSThread()
			}
		}
		result <- err
	}()
	return <-result
}

// assume runs f with the thread's identity changed. Package syscall would
// change that of all threads.
func (i *Identity) assume(f func() error) error {
	if err := setThreadGroups(i.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := setThread(unix.SYS_SETFSGID, i.GID); err != nil {
		return err
	}
	// Last, since it gives up the capabilities.
	if err := setThread(unix.SYS_SETFSUID, i.UID); err != nil {
		return err
	}
	return f()
}

func restore(groups []uint32) error {
	if err := setThread(unix.SYS_SETFSUID, uint32(unix.Geteuid())); err != nil { //nolint:gosec // never negative here
		return err
	}
	if err := setThread(unix.SYS_SETFSGID, uint32(unix.Getegid())); err != nil { //nolint:gosec // never negative here
		return err
	}
	return setThreadGroups(groups)
}

// setThread changes an identifier and checks it, since these calls report no
// errors but always return the former one.
func setThread(call uintptr, id uint32) error {
	const query = ^uintptr(0)
	_, _, _ = unix.RawSyscall(call, uintptr(id), 0, 0)
	if now, _, _ := unix.RawSyscall(call, query, 0, 0); uint32(now) != id { //nolint:gosec // identifiers have 32 bits
		return fmt.Errorf("assume identity %d: %w", id, unix.EPERM)
	}
	return nil
}

func threadGroups() ([]uint32, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_GETGROUPS, 0, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	groups := make([]uint32, n)
	if n == 0 {
		return groups, nil
	}
	n, _, errno = unix.RawSyscall(unix.SYS_GETGROUPS, n, uintptr(unsafe.Pointer(&groups[0])), 0) //nolint:gosec // as the system call wants it
	if errno != 0 {
		return nil, errno
	}
	return groups[:n], nil
}

func setThreadGroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0]) //nolint:gosec // as the system call wants it
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return errno
	}
	return nil
}
