//go:build !linux

package docker

import "time"

// sinceBoot returns the time since some moment of the past.
func sinceBoot() time.Duration { return time.Duration(time.Now().UnixNano()) }
