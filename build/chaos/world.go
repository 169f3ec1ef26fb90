package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// world is the file systems that a run of the suite works on. They are in
// memory and belong to the mount namespace: nothing of them is left afterwards.
type world struct {
	mounts []string // in the order in which they were made

	dir    string
	disk   string // the worker's
	queue  string
	ledger string // where tasks bear witness
}

// diskSize is what fits on the worker's disk, in bytes.
const diskSize = 512 << 20

// newWorld puts file systems of its own in the place of every one that a worker
// or a task writes to.
func newWorld(ctx context.Context) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := copyEtc(ctx); err != nil {
		return nil, err
	}
	w.mounts = append(w.mounts, "/etc")
	for _, dir := range []string{"/tmp", "/var/tmp", "/run", "/dev/shm", "/mnt"} {
		mode := "mode=1777"
		if dir == "/run" || dir == "/mnt" {
			mode = "mode=755"
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, mode); err != nil {
			return nil, fmt.Errorf("mount %s: %w", dir, err)
		}
		w.mounts = append(w.mounts, dir)
	}
	// Control groups are named after the directory, and are the host's.
	dir, err := os.MkdirTemp("/mnt", "chaos-")
	if err != nil {
		return nil, err
	}
	w.dir, w.disk, w.queue, w.ledger = dir, filepath.Join(dir, "disk"), filepath.Join(dir, "queue"), filepath.Join(dir, "ledger")
	err = errors.Join(
		os.Chmod(dir, 0o755),    //nolint:gosec // the users of tasks pass through
		os.Mkdir(w.disk, 0o755), //nolint:gosec // as above
		os.Mkdir(w.queue, 0o700), os.Mkdir(w.ledger, 0o700),
		os.Chmod(w.ledger, 0o1777), //nolint:gosec // the users of tasks write there
	)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", w.disk, "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", diskSize)); err != nil {
		return nil, fmt.Errorf("mount disk: %w", err)
	}
	w.mounts = append(w.mounts, w.disk)
	return w, nil
}

// close uncovers what was there before, for the next run in this process.
func (w *world) close() error {
	var errs []error
	for _, dir := range slices.Backward(w.mounts) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// copyEtc has changes of users stay in the namespace.
func copyEtc(ctx context.Context) error {
	const private = "/mnt"
	if err := unix.Mount("tmpfs", private, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", "/etc/.", private).CombinedOutput(); err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, out)
	}
	if err := unix.Mount(private, "/etc", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	return nil
}

// watched are the directories where nothing may be left.
func (w *world) watched() []string {
	return []string{w.disk, "/tmp", "/var/tmp", "/run", "/dev/shm"}
}
