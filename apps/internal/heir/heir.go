// Package heir sees to what a killed worker leaves that no other one succeeds.
//
// Such a worker has all that it stores in one directory, its estate, which it
// keeps locked. It brings along a process of its own program, the heir, that
// waits for the lock, and so for the worker's end, however that comes. Of what
// has removed its estate there is nothing left to do. Otherwise the heir does
// what the next worker would: it opens the engine, which finds what there is of
// tasks, discards that, and removes the estate. An heir that was killed together
// with its worker is made up for by Sweep, when the program is started again.
//
// main begins with
//
//	if heir.Invoked() {
//		os.Exit(heir.Main())
//	}
package heir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
)

// name is the argument zero by which the program knows that it is to be an heir.
const name = "taskcluster-heir"

// The files in an estate that are about the heir.
const (
	lockName = "lock"
	willName = "heir.json"
)

// Will says how the worker that has the estate was configured.
type Will struct {
	Worker section.Worker
	Linux  section.Linux

	// Shared says that what the engine has is not the estate's: the next worker
	// that uses the same removes it.
	Shared bool
}

// Appoint makes a directory the estate of this process, and starts its heir. The
// returned function removes the directory, and ends the heir.
func Appoint(dir string, w Will) (leave func() error, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, fmt.Errorf("appoint heir: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("appoint heir: %w", err), lock.Close())
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	content, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	// Whoever finds the will can be sure that the estate was locked.
	if err := os.WriteFile(filepath.Join(dir, willName), content, 0o600); err != nil {
		return nil, err
	}
	heir, err := start(dir)
	if err != nil {
		return nil, err
	}
	return func() error {
		err := errors.Join(os.RemoveAll(dir), lock.Close()) // in this order, so that nothing is left to the heir
		_, waited := heir.Wait()
		return errors.Join(err, waited)
	}, nil
}

// start starts an heir, in a session of its own, since what interrupts the worker
// is not for it. It tells the worker's standard error what it cannot do.
func start(dir string) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	return os.StartProcess("/proc/self/exe", []string{name, dir}, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{null, null, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// Sweep starts heirs for estates, by a pattern of their names, whose workers have
// ended together with their heirs. It waits for none of them.
func Sweep(pattern string) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if !abandoned(dir) {
			continue
		}
		heir, err := start(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, heir.Release())
	}
	return errors.Join(errs...)
}

// abandoned reports whether a directory is an estate of this user, whose worker
// has ended. It does not believe what others have put in its place.
func abandoned(dir string) bool {
	s, err := os.Lstat(dir)
	if err != nil || !s.IsDir() || s.Mode().Perm()&0o022 != 0 {
		return false
	}
	if owner, ok := s.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return false
	}
	if _, err := os.Lstat(filepath.Join(dir, willName)); err != nil {
		return false
	}
	lock, err := os.Open(filepath.Join(dir, lockName)) //nolint:gosec // in a directory of this user
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer func() { _ = lock.Close() }()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
