package docker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// slowly is how often files are looked at of which the kernel does not tell.
const slowly = 200 * time.Millisecond

// watcher tells of files that grow.
type watcher struct {
	inotify *os.File // nil if the kernel does not tell of any
	add     func(path string) (wd int, err error)
	remove  func(wd int)
	done    chan struct{}

	mu    sync.Mutex
	files map[int32]chan struct{}
}

func newWatcher() (*watcher, error) { return watcherBy(unix.InotifyInit1) }

// watcherBy returns a watcher by what init returns. All instances of the user
// root count against one limit of the kernel: where others have used it up, the
// watcher has none.
func watcherBy(init func(flags int) (fd int, err error)) (*watcher, error) {
	w := &watcher{done: make(chan struct{}), files: map[int32]chan struct{}{}}
	fd, err := init(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if isExhausted(err) {
		close(w.done)
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w.inotify = os.NewFile(uintptr(fd), "inotify")
	w.add = func(path string) (int, error) { return unix.InotifyAddWatch(fd, path, unix.IN_MODIFY) }
	w.remove = func(wd int) { _, _ = unix.InotifyRmWatch(fd, uint32(wd)) } //nolint:gosec // fails if the file is gone
	go w.loop()
	return w, nil
}

// isExhausted reports whether an error says that there are no more instances of
// inotify, or no more files that can be watched.
func isExhausted(err error) bool {
	for _, limit := range []error{unix.EMFILE, unix.ENFILE, unix.ENOSPC, unix.ENOMEM} {
		if errors.Is(err, limit) {
			return true
		}
	}
	return false
}

// watch returns a channel that yields something after each change of a file, and
// a function that ends it. All that the user root watches counts against one
// limit of the kernel: where tasks have used it up, the channel yields something
// from time to time.
func (w *watcher) watch(path string) (changed <-chan struct{}, stop func(), err error) {
	if w.inotify == nil {
		changed, stop = regularly(slowly)
		return changed, stop, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := w.add(path)
	if isExhausted(err) {
		changed, stop = regularly(slowly)
		return changed, stop, nil
	}
	if err != nil {
		return nil, nil, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	c := make(chan struct{}, 1)
	w.files[int32(wd)] = c //nolint:gosec // the kernel's are that small
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.files, int32(wd)) //nolint:gosec // as above
		w.remove(wd)
	}, nil
}

func (w *watcher) loop() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return // it is closed
		}
		w.mu.Lock()
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			w.tell(int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[4:])) //nolint:gosec // as it was put in
			name := int(binary.NativeEndian.Uint32(rest[12:]))
			rest = rest[min(len(rest), unix.SizeofInotifyEvent+name):]
		}
		w.mu.Unlock()
	}
}

// tell tells of an event. The caller holds the lock.
func (w *watcher) tell(wd int32, mask uint32) {
	for other, c := range w.files {
		if other != wd && mask&unix.IN_Q_OVERFLOW == 0 {
			continue
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// close ends the watcher. It may be called of nil.
func (w *watcher) close() {
	if w == nil {
		return
	}
	_ = w.inotify.Close() // which may be nil
	<-w.done
}
