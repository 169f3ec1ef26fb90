//go:build !linux

package journalfile

import "os"

// syncContent has the content of f survive a crash of the host.
func syncContent(f *os.File) error { return f.Sync() }
