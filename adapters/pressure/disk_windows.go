package pressure

import "golang.org/x/sys/windows"

// freeDisk returns how much the worker's user may still write to a directory's
// volume.
func freeDisk(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil //nolint:gosec // G115: no disk is that large
}
