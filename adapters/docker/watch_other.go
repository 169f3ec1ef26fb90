//go:build !linux

package docker

import "time"

// watcher tells that files may have grown.
type watcher struct{}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

// watch returns a channel that yields something from time to time, and a
// function that ends it.
func (*watcher) watch(string) (changed <-chan struct{}, stop func(), err error) {
	changed, stop = regularly(20 * time.Millisecond)
	return changed, stop, nil
}

func (*watcher) close() {}
