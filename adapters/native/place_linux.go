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
	dir      string                 // in which they are
	instance string                 // tells those of this process from those of others
	inside   map[string]fs.FileMode // the directories that are in each of them

	mu   sync.Mutex
	free []string
	made int
}

// take returns the name of a directory that is empty but for those inside. The
// umask has no say in their modes, nor has a task before that had the rights of
// root.
func (p *places) take() (string, error) {
	p.mu.Lock()
	var name string
	if n := len(p.free); n > 0 {
		name = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		p.made++
		name = p.instance + "-" + strconv.Itoa(p.made)
	}
	p.mu.Unlock()
	dir := filepath.Join(p.dir, name)
	err := makeDir(dir, 0o700)
	for inner, mode := range p.inside {
		if err == nil {
			err = makeDir(filepath.Join(dir, inner), mode)
		}
	}
	if err != nil {
		return "", errors.Join(err, p.give(name))
	}
	return name, nil
}

// stock makes n more directories, for the time when tasks come, and the files
// that are in them after a task. What cannot be made now may be then.
func (p *places) stock(n int) error {
	var made []string
	var err error
	for range n {
		var name string
		if name, err = p.take(); err != nil {
			break
		}
		made = append(made, name)
		for _, file := range []string{outputName, processName} {
			err = errors.Join(err, os.WriteFile(filepath.Join(p.dir, name, file), nil, 0o600))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, made...)
	return err
}

// give takes back a directory that nobody uses any more, and empties it.
func (p *places) give(name string) error {
	err := p.empty(name)
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

// makeWork makes the task directory, which is a task's own to change: there is
// another one for each.
func (e *Engine) makeWork(b *berth) error {
	work := filepath.Join(b.dir, workName)
	if err := os.Mkdir(work, 0o700); err != nil || e.users.current != nil {
		return err
	}
	return os.Chown(work, int(b.account.uid), int(b.account.gid))
}

func makeDir(name string, mode fs.FileMode) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(name, mode)
}

// empty removes what a task and its supervisor have left in the directory of a
// berth, but for what is inside of each and the files that the next berth
// overwrites.
func (p *places) empty(name string) error {
	root, err := os.OpenRoot(filepath.Join(p.dir, name))
	if err != nil {
		return err
	}
	r := remover{top: root}
	return errors.Join(r.emptyPlace(p.inside), root.Close())
}

func (r *remover) emptyPlace(keep map[string]fs.FileMode) error {
	// Directories that are deep come to the top, and may do so again.
	for last := false; !last; {
		entries, err := readSome(r.top)
		if err != nil {
			return err
		}
		last = true
		for _, entry := range entries {
			name := entry.Name()
			_, kept := keep[name]
			switch {
			case name == processName:
			case name == outputName:
				err = truncate(r.top, name)
			case kept:
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
