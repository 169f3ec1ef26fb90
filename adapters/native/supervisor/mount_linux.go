package supervisor

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// enter makes the mount namespace, which is a copy of the worker's, the task's.
func enter(s *Setup) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The sources are opened first, since a mount may well cover another's source.
	work, err := openDir(s.Work)
	if err != nil {
		return err
	}
	defer func() { _ = work.Close() }()
	telling, err := openDir(s.Telling)
	if err != nil {
		return err
	}
	defer func() { _ = telling.Close() }()
	sources := make([]*os.File, len(s.Mounts))
	for i, m := range s.Mounts {
		if sources[i], err = openDir(m.Source); err != nil {
			return err
		}
		defer func() { _ = sources[i].Close() }()
	}
	for i, m := range s.Mounts {
		if err := bind(sources[i], m.Target); err != nil {
			return err
		}
	}
	for _, dir := range s.Memory {
		options := "mode=1777"
		if s.Bytes > 0 {
			options += ",size=" + strconv.FormatInt(s.Bytes, 10)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := hide(s, map[string]*os.File{s.WorkDir: work, s.Told: telling}); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", "/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// Message queues belong to the IPC namespace, but are seen where they are mounted.
	if _, err := os.Stat("/dev/mqueue"); err == nil {
		_ = unix.Mount("mqueue", "/dev/mqueue", "mqueue", flags, "") // else the host's, which are empty to the task
	}
	return nil
}

// hide covers the worker's directory with one in which there are only those that
// the task is to see, by the paths that it sees them by.
func hide(s *Setup, shown map[string]*os.File) error {
	if err := os.MkdirAll(s.Hide, 0o755); err != nil { //nolint:gosec // the task must get through to its directory
		return err
	}
	if err := unix.Mount("tmpfs", s.Hide, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=64k"); err != nil {
		return fmt.Errorf("hide %s: %w", s.Hide, err)
	}
	for target, dir := range shown {
		if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // the task must get through to its directory
			return err
		}
		if err := bind(dir, target); err != nil {
			return err
		}
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", s.Hide, "", flags, ""); err != nil {
		return fmt.Errorf("seal %s: %w", s.Hide, err)
	}
	return nil
}

func openDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func bind(source *os.File, target string) error {
	from := "/proc/self/fd/" + strconv.Itoa(int(source.Fd()))
	if err := unix.Mount(from, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source.Name(), target, err)
	}
	return nil
}
