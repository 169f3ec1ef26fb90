//go:build unix

package pressure

import "golang.org/x/sys/unix"

// freeDisk returns how much users may still write to a directory's file system.
func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert // G115: no disk is that large; types differ among systems
}
