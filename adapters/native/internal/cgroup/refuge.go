package cgroup

import (
	"errors"
	"os"
	"path/filepath"
)

// Refuge is a group without limits for processes that are to survive the end of
// the group that this process is in, by which service managers end services.
// They tell by the hierarchy of version 2, which exists with and without
// controllers.
type Refuge struct{ dir *os.File }

// OpenRefuge returns the refuge with the given name, and makes it.
//
// Errors: ErrUnavailable, if there is no such hierarchy that this process may
// make groups at the top of.
func OpenRefuge(name string) (*Refuge, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, m := range parseMounts(string(mounts)) {
		if !m.unified {
			continue
		}
		dir := filepath.Join(m.dir, name)
		if e := os.MkdirAll(dir, 0o755); e != nil { //nolint:gosec // as all groups
			err = errors.Join(err, e)
			continue
		}
		f, e := os.Open(dir) //nolint:gosec // a directory of the kernel
		if e == nil {
			return &Refuge{dir: f}, nil
		}
		err = errors.Join(err, e)
	}
	return nil, errors.Join(ErrUnavailable, err)
}

// FD returns the descriptor to start processes in the refuge with.
func (r *Refuge) FD() int { return int(r.dir.Fd()) }

// Close removes the refuge, unless processes are in it.
func (r *Refuge) Close() error {
	_ = os.Remove(r.dir.Name()) // fails if processes are in it
	return r.dir.Close()
}
