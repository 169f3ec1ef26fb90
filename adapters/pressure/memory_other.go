//go:build !linux

package pressure

import "errors"

// freeMemory is not known.
func freeMemory() (int64, error) { return 0, errors.ErrUnsupported }
