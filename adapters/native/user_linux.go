package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// leases is where the users that workers of this host have taken are locked.
const leases = "/run/taskcluster-worker/users"

// account is the user that a task runs as.
type account struct {
	name     string
	uid, gid uint32
	lease    *os.File // locked while this worker or a supervisor has the user; nil for the current user
}

// users is the pool of users for tasks. The current user is the only one in it,
// for any number of tasks, unless the worker is root.
type users struct {
	prefix  string
	current *account

	mu   sync.Mutex
	free []*account
	next int // number to try for the next user
}

// newUsers returns the pool of users with the given prefix.
func newUsers(prefix string) (*users, error) {
	u := &users{prefix: prefix, next: 1}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll(leases, 0o700); err != nil {
			return nil, fmt.Errorf("make directory for leases of users: %w", err)
		}
		return u, nil
	}
	u.current = &account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())} //nolint:gosec // never negative here
	u.current.name = strconv.Itoa(os.Geteuid())
	if c, err := user.Current(); err == nil {
		u.current.name = c.Username
	}
	return u, nil
}

// take returns a user that no one else has, and makes one if there is none. That
// takes some 15 ms, so it is for the background.
func (u *users) take(ctx context.Context) (*account, error) {
	if u.current != nil {
		return u.current, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.free); n > 0 {
		a := u.free[n-1]
		u.free = u.free[:n-1]
		return a, nil
	}
	for ; ; u.next++ {
		a, err := u.claim(ctx, u.prefix+strconv.Itoa(u.next))
		if err != nil {
			return nil, err
		}
		if a != nil {
			u.next++
			return a, nil
		}
	}
}

// stock sees to it that n users are there for tasks that come at once.
func (u *users) stock(ctx context.Context, n int) error {
	if u.current != nil {
		return nil
	}
	var err error
	taken := make([]*account, 0, n)
	for len(taken) < n && err == nil {
		var a *account
		if a, err = u.take(ctx); err == nil {
			taken = append(taken, a)
		}
	}
	for _, a := range taken {
		u.give(a)
	}
	return err
}

// give returns a user to the pool, of which nothing is left running.
func (u *users) give(a *account) {
	if u.current != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if a.lease == nil {
		// An earlier process has taken it, and the supervisor has kept it.
		lease, err := lock(filepath.Join(leases, a.name))
		if err != nil {
			return // another worker was faster
		}
		a.lease = lease
	}
	u.free = append(u.free, a)
}

// close gives up the leases of all users that have been given back.
func (u *users) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.free {
		_ = a.lease.Close()
	}
	u.free = nil
}

// claim takes the user with the given name for this worker, and makes it if
// need be. It returns nil if another worker has it.
func (u *users) claim(ctx context.Context, name string) (*account, error) {
	lease, err := lock(filepath.Join(leases, name))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil //nolint:nilnil // there is no error and no user
	}
	if err != nil {
		return nil, fmt.Errorf("lease user %s: %w", name, err)
	}
	found, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		if err = useradd(ctx, name); err == nil {
			found, err = user.Lookup(name)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make user %s: %w", name, err), lease.Close())
	}
	uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
	if uidErr != nil || gidErr != nil || uid == 0 || gid == 0 {
		return nil, errors.Join(fmt.Errorf("user %s has the rights of the system", name), lease.Close())
	}
	return &account{name: name, uid: uint32(uid), gid: uint32(gid), lease: lease}, nil
}

// useradd makes a user. Others may hold the lock of the user database meanwhile.
// An attempt is not broken off, which could leave a user without its group.
func useradd(ctx context.Context, name string) error {
	const locked = 10 // exit code of useradd and of groupadd, as 1 is
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		//nolint:gosec // the name is the operator's prefix and a number
		out, err := exec.CommandContext(context.WithoutCancel(ctx), "useradd", "--no-create-home", "--home-dir", "/nonexistent",
			"--user-group", "--no-log-init", "--shell", "/bin/sh", name).CombinedOutput()
		if err == nil {
			return nil
		}
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 1 && exit.ExitCode() != locked || wait > time.Second {
			return fmt.Errorf("useradd: %w: %s", err, out)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// lock opens a file, makes it if need be, and locks it for as long as any copy
// of the descriptor is open. It fails with EWOULDBLOCK if it is locked already.
func lock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
