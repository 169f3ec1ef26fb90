package artifacts

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/pkg/contenttype"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// item is an artifact in the making: a file, or why there is none.
type item struct {
	meta     artifact.Meta
	path     string // in the sandbox's file system
	shown    string // the path as the task knows it
	encoding string // gzip or identity
	size     int64
	optional bool
	flaw     *flaw
}

// flaw is what keeps a file from being an artifact.
type flaw struct {
	absence artifact.Absence // empty if the artifact is to be left alone
	message string
	kind    func(err error, format string, args ...any) error // makes the fault of it
	err     error
}

func malformed(_ error, format string, args ...any) error { return fault.Malformedf(format, args...) }

// collect finds the files of entries, in the order in which these are declared
// and then in that of their names.
func (p *taskPlugin) collect(r engine.ResultSet, entries []entry) []item {
	c := &collector{fsys: r.FS(), dir: r.Dir(), most: p.config.MaxFiles, byName: map[string]int{}}
	for _, e := range entries {
		c.add(e)
	}
	return c.items
}

type collector struct {
	fsys   fs.FS
	dir    string
	most   int
	items  []item
	byName map[string]int // index in items, of the files among them
}

func (c *collector) add(e entry) {
	at := locate(c.dir, e.Path)
	if e.Type == "file" {
		c.file(e, e.Name, at)
		return
	}
	root, err := fs.Stat(c.fsys, at)
	switch {
	case err != nil:
		c.refuse(e, e.Name, at, unreadable("directory", at, err))
	case !root.IsDir():
		c.refuse(e, e.Name, at, invalid("Directory artifact '%s' exists as a file, not a directory, on the worker", at))
	default:
		c.directory(e, at)
	}
}

// directory adds what is in a directory. Links in it are files if they lead to
// files; they are never followed to directories, which may lead in circles.
func (c *collector) directory(e entry, root string) {
	_ = fs.WalkDir(c.fsys, root, func(at string, found fs.DirEntry, err error) error {
		relative := at
		if root != "." {
			relative = strings.TrimPrefix(at, root)
		}
		name := path.Join(e.Name, relative)
		switch {
		case err != nil:
			c.refuse(e, name, at, unreadable("directory", at, err))
			return fs.SkipDir
		case found.IsDir():
			return nil
		case len(c.items) >= c.most:
			c.refuse(e, e.Name, root, &flaw{
				message: fmt.Sprintf("the artifacts consist of more than %d files, which is the most that this worker publishes", c.most),
				kind:    fault.Failuref,
			})
			return fs.SkipAll
		}
		c.file(e, name, at)
		return nil
	})
}

// file adds a file. A directory that it is in may be declared as well: what is
// said of the file itself counts.
func (c *collector) file(e entry, name, at string) {
	if i, ok := c.byName[name]; ok {
		there := c.items[i]
		switch {
		case there.path != at:
			c.refuse(e, name, at, &flaw{
				message: fmt.Sprintf("%s and %s are two files of one name", there.shown, show(at)),
				kind:    malformed,
			})
		case e.Type == "file":
			c.items[i] = c.item(e, name, at)
			c.items[i].size = there.size
		}
		return
	}
	stat, err := fs.Stat(c.fsys, at)
	switch {
	case err != nil:
		c.refuse(e, name, at, unreadable("file", at, err))
		return
	case stat.IsDir():
		c.refuse(e, name, at, invalid("File artifact '%s' exists as a directory, not a file, on the worker", at))
		return
	case !stat.Mode().IsRegular():
		c.refuse(e, name, at, invalid("File artifact '%s' is not a regular file on the worker", at))
		return
	}
	c.byName[name] = len(c.items)
	it := c.item(e, name, at)
	it.size = stat.Size()
	c.items = append(c.items, it)
}

func (c *collector) refuse(e entry, name, at string, f *flaw) {
	it := c.item(e, name, at)
	it.flaw = f
	c.items = append(c.items, it)
}

func (c *collector) item(e entry, name, at string) item {
	it := item{
		meta:     artifact.Meta{Name: name, ContentType: e.ContentType, Expires: e.expires},
		path:     at,
		shown:    show(at),
		encoding: e.ContentEncoding,
		optional: e.Optional,
	}
	if it.meta.ContentType == "" {
		it.meta.ContentType = contenttype.ByName(at)
	}
	if it.encoding == "" {
		it.encoding = "gzip"
		if contenttype.Compressed(at) {
			it.encoding = "identity"
		}
	}
	return it
}

// locate returns where a path of the payload is in the sandbox's file system,
// given the task's working directory. It never leads out of that file system.
func locate(dir, p string) string {
	if !path.IsAbs(p) {
		p = path.Join("/", dir, p)
	}
	if p = strings.TrimPrefix(path.Clean(p), "/"); p == "" {
		return "."
	}
	return p
}

// show returns a path in the sandbox's file system as the task knows it.
func show(at string) string { return path.Join("/", at) }

func unreadable(what, at string, err error) *flaw {
	f := &flaw{absence: artifact.NotReadable, kind: fault.Failuref, err: err}
	why := "it cannot be read"
	read, changed := errors.AsType[*changedError](err)
	switch {
	case changed:
		why = read.Error()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		f.absence = artifact.FileMissing
		why = "it does not exist"
	case errors.Is(err, fs.ErrPermission):
		why = "the task's user may not read it"
	}
	f.message = fmt.Sprintf("Could not read %s '%s': %s", what, show(at), why)
	return f
}

func invalid(format, at string) *flaw {
	return &flaw{absence: artifact.InvalidResource, message: fmt.Sprintf(format, show(at)), kind: fault.Failuref}
}
