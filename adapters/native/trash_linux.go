package native

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxDepth is how many levels of a tree are removed with a descriptor for each.
const maxDepth = 64

// removeTree removes a directory below which a task could write, but not in it.
//
// os.RemoveAll needs a descriptor for each level and memory for each name, of
// which a task can make more than the worker has. It also fails, unless for
// root, at directories that are not writable, as in Go's module cache.
func removeTree(dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r := remover{top: root}
	err = errors.Join(r.empty(root, ".", 1), root.Close())
	if err != nil {
		return err
	}
	return os.Remove(dir)
}

type remover struct{ top *os.Root }

// empty removes what is in dir, which is named at in the top directory.
func (r *remover) empty(dir *os.Root, at string, level int) error {
	for {
		entries, err := readSome(dir)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				err = r.remove(dir, e.Name(), filepath.Join(at, e.Name()), level)
			} else {
				err = dir.Remove(e.Name())
			}
			if err != nil {
				return err
			}
		}
	}
}

// remove removes the directory name in dir, or puts off one that is deep by
// moving it to the top.
func (r *remover) remove(dir *os.Root, name, at string, level int) error {
	if level == maxDepth {
		// To move a directory takes the right to write to it.
		if err := dir.Chmod(name, 0o700); err != nil {
			return err
		}
		// A removal that was broken off has left others there.
		return r.top.Rename(at, "deep-"+rand.Text())
	}
	if err := r.emptyDir(dir, name, at, level); err != nil {
		return err
	}
	return dir.Remove(name)
}

// emptyDir removes what is in the directory name in dir.
func (r *remover) emptyDir(dir *os.Root, name, at string, level int) error {
	if err := dir.Chmod(name, 0o700); err != nil {
		return err
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return err
	}
	return errors.Join(r.empty(sub, at, level+1), sub.Close())
}

func readSome(dir *os.Root) ([]fs.DirEntry, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(1024)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return entries, errors.Join(err, f.Close())
}
