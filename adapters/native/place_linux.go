package native

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// places are the directories of berths. To make and to remove files is what a
// file system is slow at, and it is most of what a berth takes of the worker.
// So a directory is emptied after a task, and used again with what tasks cannot
// change about it.
type places struct {
	dir      string // in which they are
	instance string // tells those of this process from those of others

	mu   sync.Mutex
	free []string
	made int
}

// take returns the name of a directory that is empty, or is still to be made.
func (p *places) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		name := p.free[n-1]
		p.free = p.free[:n-1]
		return name
	}
	p.made++
	return p.instance + "-" + strconv.Itoa(p.made)
}

// give takes back a directory that nobody uses any more, and empties it.
func (p *places) give(name string) error {
	err := emptyPlace(filepath.Join(p.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was never made
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, name)
	return nil
}

// close removes the directories that are not in use.
func (p *places) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, name := range p.free {
		err = errors.Join(err, removeTree(filepath.Join(p.dir, name)))
	}
	p.free = nil
	return err
}

// makePlace makes the directory of a berth and what belongs in it, as far as it
// is not there. The umask has no say, nor has a task before it that had the
// rights of root.
func (e *Engine) makePlace(b *berth) error {
	err := makeDir(b.dir, 0o700)
	if err == nil {
		err = makeDir(filepath.Join(b.dir, tellingName), 0o755)
	}
	if e.isolated {
		for name := range e.replaced {
			if err == nil {
				err = makeDir(filepath.Join(b.dir, name), 0o777|os.ModeSticky) // as /tmp is
			}
		}
	}
	// A task can change a lot about its own directory: there is one for each.
	work := filepath.Join(b.dir, workName)
	if err == nil {
		err = os.Mkdir(work, 0o700)
	}
	if err == nil && e.users.current == nil {
		err = os.Chown(work, int(b.account.uid), int(b.account.gid))
	}
	return err
}

func makeDir(name string, mode fs.FileMode) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(name, mode)
}

// emptyPlace removes what a task and its supervisor have left in the directory
// of a berth, but for what makePlace has made and the files that the next berth
// overwrites.
func emptyPlace(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	r := remover{top: root}
	return errors.Join(r.emptyPlace(), root.Close())
}

func (r *remover) emptyPlace() error {
	// Directories that are deep come to the top, and may do so again.
	for last := false; !last; {
		entries, err := readSome(r.top)
		if err != nil {
			return err
		}
		last = true
		for _, entry := range entries {
			switch name := entry.Name(); {
			case name == processName:
			case name == outputName:
				err = truncate(r.top, name)
			case name == tellingName, replaced[name] != "":
				err = r.emptyDir(r.top, name, name, 1)
			case entry.IsDir():
				last, err = false, r.remove(r.top, name, name, 1)
			default:
				last, err = false, r.top.Remove(name)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// truncate makes a file empty, so that what a task has printed does not take
// room until the next one comes.
func truncate(dir *os.Root, name string) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
