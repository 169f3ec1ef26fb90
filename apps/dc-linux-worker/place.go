package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/apps/internal/heir"
)

// temporaryDir is what the names of temporary directories begin with.
const temporaryDir = "dc-linux-worker-"

// settleIn has an embedded queue and its worker store all that they do in the
// directory data, for the next time. If that is empty, they do in a temporary
// one, of which nothing is left however this process ends; leave removes it.
func (l *loaded) settleIn(data string) (dir string, leave func() error, err error) {
	dir, leave, err = workDir(data)
	if err != nil {
		return "", nil, err
	}
	shared := l.placeIn(dir)
	if data != "" {
		return dir, leave, nil
	}
	remove := leave
	leave, err = heir.Appoint(dir, heir.Will{Worker: l.Worker.Worker, Linux: l.Linux, Shared: shared})
	if err == nil {
		err = heir.Sweep(filepath.Join(os.TempDir(), temporaryDir+"*"))
	}
	if err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return dir, leave, nil
}

// workDir returns the directory for all that an embedded queue and its worker
// store: dir or, if that is empty, a temporary one, which the returned function
// removes.
func workDir(dir string) (path string, remove func() error, err error) {
	remove = func() error { return nil }
	if dir == "" {
		if dir, err = os.MkdirTemp("", temporaryDir); err != nil {
			return "", nil, fmt.Errorf("make temporary directory: %w", err)
		}
		remove = func() error { return os.RemoveAll(dir) }
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, fmt.Errorf("find directory: %w", err)
	}
	// Tasks run as users of their own, in directories below it.
	if err = os.MkdirAll(dir, 0o711); err == nil { //nolint:gosec // G301: see above
		err = os.Chmod(dir, 0o711) //nolint:gosec // G302: see above
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make directory: %w", err), remove())
	}
	return dir, remove, nil
}

// placeIn has all that is stored be in dir, unless the operator has said where.
// It reports whether the engine has what others may use, too.
func (l *loaded) placeIn(dir string) (shared bool) {
	l.State = filepath.Join(dir, "state") // one for each queue
	if l.isDefault("caches.table") {
		l.Caches.Table = filepath.Join(dir, "caches.json")
	}
	shared = !l.isDefault("native.dir")
	if l.Engine == docker.Name {
		shared = l.Docker.Instance != ""
	}
	if l.Docker.Instance == "" {
		l.Docker.Instance = "dc-linux-worker in " + dir
	}
	if l.isDefault("native.dir") {
		l.Native.Dir = filepath.Join(dir, "native")
	}
	return shared
}
