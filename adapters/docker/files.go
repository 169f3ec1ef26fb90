package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

const (
	mostLinks  = 40       // that are followed to a file
	mostFiles  = 500_000  // that a directory may contain, at any depth
	smallFile  = 64 << 10 // bytes up to which content is kept while a directory is read
	smallFiles = 16 << 20 // bytes that are kept of all small files
)

// files are those in a container, as an fs.FS that is rooted at its root. They
// come in archives that the daemon makes: one for each file, and one for all
// below a directory, from which small files are kept so that a directory of many
// of them is transferred once.
type files struct {
	e  *Engine
	id string

	rights func() (rights, error) // of the task's user

	mu   sync.Mutex
	kept map[string]*node // by path, of directories that were read
	room int              // bytes that may still be kept
}

var (
	_ fs.ReadDirFS  = (*files)(nil)
	_ fs.StatFS     = (*files)(nil)
	_ fs.ReadLinkFS = (*files)(nil)
)

func newFiles(e *Engine, id string) *files {
	f := &files{e: e, id: id, kept: map[string]*node{}, room: smallFiles}
	f.rights = sync.OnceValues(f.findRights)
	return f
}

// FS implements engine.ResultSet.
func (r *resultSet) FS() fs.FS { return r.files }

// node is a file in a container. It implements fs.FileInfo and fs.DirEntry.
type node struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
	uid, gid int    // as the container sees them; of no meaning where the user is root
	target   string // of a link
	content  []byte // of a small file; nil if it is not kept
	children map[string]*node
}

func (n *node) Name() string               { return n.name }
func (n *node) Size() int64                { return n.size }
func (n *node) Mode() fs.FileMode          { return n.mode }
func (n *node) ModTime() time.Time         { return n.modified }
func (n *node) IsDir() bool                { return n.mode.IsDir() }
func (n *node) Sys() any                   { return nil }
func (n *node) Type() fs.FileMode          { return n.mode.Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

// Lstat implements fs.ReadLinkFS.
func (f *files) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.lstat("lstat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// ReadLink implements fs.ReadLinkFS.
func (f *files) ReadLink(name string) (string, error) {
	n, err := f.lstat("readlink", name)
	if err != nil {
		return "", err
	}
	if n.mode.Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.target, nil
}

// Stat implements fs.StatFS.
func (f *files) Stat(name string) (fs.FileInfo, error) {
	n, _, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Open implements fs.FS.
func (f *files) Open(name string) (fs.File, error) {
	n, at, err := f.find("open", name)
	if err == nil {
		err = f.allow("open", name, n)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case n.IsDir():
		return &directory{f: f, node: n, at: at}, nil
	case !n.mode.IsRegular():
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	case n.content != nil:
		return &regular{node: n, content: io.NopCloser(bytes.NewReader(n.content))}, nil
	}
	s := &stream{f: f, name: name, at: at}
	if n, err = s.open(); err != nil {
		return nil, err
	}
	return &regular{node: n, content: s}, nil
}

// ReadDir implements fs.ReadDirFS.
func (f *files) ReadDir(name string) ([]fs.DirEntry, error) {
	n, at, err := f.find("readdir", name)
	if err == nil {
		err = f.allow("readdir", name, n)
	}
	if err != nil {
		return nil, err
	}
	if !n.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	children, err := f.children(n, at)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	entries := make([]fs.DirEntry, 0, len(children))
	for _, c := range children {
		entries = append(entries, c)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// find returns a file and its path, with links followed.
func (f *files) find(op, name string) (n *node, at string, err error) {
	r, err := f.rights()
	if err != nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !r.all {
		return f.walk(op, name, true, r)
	}
	at = name
	for range mostLinks {
		n, err := f.lstat(op, at)
		if err != nil || n.mode.Type() != fs.ModeSymlink {
			return n, at, err
		}
		// A path that leaves the root by dots stays at the root, as it does
		// for the task.
		target := n.target
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(at), target)
		}
		if at = strings.TrimPrefix(path.Clean(target), "/"); at == "" {
			at = "."
		}
	}
	return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ELOOP}
}

// allow returns an error unless the task's user may read a file or directory.
func (f *files) allow(op, name string, n *node) error {
	r, err := f.rights()
	if err == nil && !r.may(n, mayRead) {
		err = fs.ErrPermission
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// lstat returns a file, and the link itself if it is one. The daemon follows
// links in the directories of its path, within the container's root.
func (f *files) lstat(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	r, err := f.rights()
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !r.all {
		n, _, err := f.walk(op, name, false, r)
		return n, err
	}
	f.mu.Lock()
	known := f.kept[name]
	f.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(f.e.ctx, callTime)
	defer cancel()
	var found client.ContainerStatPathResult
	err = f.e.again(func() (err error) {
		found, err = f.e.daemon.ContainerStatPath(ctx, f.id, client.ContainerStatPathOptions{Path: absolute(name)})
		return err
	})
	if err != nil {
		return nil, pathError(op, name, err)
	}
	stat := found.Stat
	return &node{name: path.Base(name), size: stat.Size, mode: stat.Mode, modified: stat.Mtime, target: stat.LinkTarget}, nil
}

// children returns the files in a directory, and keeps all that is below it.
func (f *files) children(n *node, at string) (map[string]*node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.children != nil {
		return n.children, nil
	}
	var root *node
	room := f.room
	err := f.e.again(func() (err error) {
		f.room = room
		root, err = f.readChildren(n, at)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.kept[at] = root
	return root.children, nil
}

// readChildren returns a directory with all that is below it.
func (f *files) readChildren(n *node, at string) (*node, error) {
	archive, err := f.e.daemon.CopyFromContainer(f.e.ctx, f.id, client.CopyFromContainerOptions{SourcePath: absolute(at) + "/."})
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Content.Close() }()
	root := *n
	root.children = map[string]*node{}
	count := 0
	for t := tar.NewReader(archive.Content); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if count++; count > mostFiles {
			return nil, fmt.Errorf("there are more than %d files in it", mostFiles)
		}
		if err := f.add(&root, at, h, t); err != nil {
			return nil, err
		}
	}
	return &root, nil
}

// add adds a file of an archive to the directory at a path.
func (f *files) add(root *node, at string, h *tar.Header, content io.Reader) error {
	inside := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if inside == "" {
		return nil // the directory itself
	}
	parent := root
	elements := strings.Split(inside, "/")
	for _, e := range elements[:len(elements)-1] {
		if parent = parent.children[e]; parent == nil || parent.children == nil {
			return fmt.Errorf("the archive has %q in no directory", h.Name)
		}
	}
	n := f.nodeOf(h)
	if h.Typeflag == tar.TypeLink {
		// What another name of the file stands for is not in the archive again.
		parent.children[n.name] = n
		return f.statLink(n, path.Join(at, inside))
	}
	if n.mode.IsRegular() && n.size <= smallFile && int(n.size) <= f.room {
		n.content = make([]byte, n.size)
		if _, err := io.ReadFull(content, n.content); err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		f.room -= len(n.content)
	}
	parent.children[n.name] = n
	f.kept[path.Join(at, inside)] = n
	return nil
}

// statLink completes a file that has several names.
func (f *files) statLink(n *node, at string) error {
	ctx, cancel := context.WithTimeout(f.e.ctx, callTime)
	defer cancel()
	r, err := f.e.daemon.ContainerStatPath(ctx, f.id, client.ContainerStatPathOptions{Path: absolute(at)})
	if err != nil {
		return err
	}
	n.size, n.mode, n.target = r.Stat.Size, r.Stat.Mode, r.Stat.LinkTarget
	f.kept[at] = n
	return nil
}

func (f *files) nodeOf(h *tar.Header) *node {
	info := h.FileInfo()
	n := &node{
		name: path.Base(path.Clean("/" + h.Name)), size: h.Size, mode: info.Mode(), modified: h.ModTime,
		uid: h.Uid - f.e.shift.uid, gid: h.Gid - f.e.shift.gid, target: h.Linkname,
	}
	if n.IsDir() {
		n.children = map[string]*node{}
	}
	return n
}

// pathError returns an error of the daemon as one of a file system.
func pathError(op, name string, err error) error {
	switch {
	case errdefs.IsNotFound(err):
		err = fs.ErrNotExist
	case errdefs.IsInvalidArgument(err):
		err = fs.ErrInvalid
	case strings.Contains(err.Error(), "not a directory"):
		err = syscall.ENOTDIR
	case strings.Contains(err.Error(), "too many levels of symbolic links"):
		err = syscall.ELOOP
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// directory is an open directory.
type directory struct {
	f    *files
	node *node
	at   string
	rest []fs.DirEntry
	read bool
}

// Stat implements fs.File.
func (d *directory) Stat() (fs.FileInfo, error) { return d.node, nil }

// Read implements fs.File.
func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.at, Err: syscall.EISDIR}
}

// Close implements fs.File.
func (d *directory) Close() error { return nil }

// ReadDir implements fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		entries, err := d.f.ReadDir(d.at)
		if err != nil {
			return nil, err
		}
		d.rest, d.read = entries, true
	}
	if n <= 0 {
		all := d.rest
		d.rest = nil
		return all, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	part := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(part):]
	return part, nil
}
