package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
)

// rights are those of the user that a task ran as. The daemon reads files of a
// container as root, so that what the user may not read is told by the owner
// and the mode of each file on the way.
type rights struct {
	all      bool // of root
	uid, gid int
	groups   []int
}

// may reports whether the user may do with a file what the bits of a mode for
// others say.
func (r rights) may(n *node, bits fs.FileMode) bool {
	switch {
	case r.all:
		return true
	case n.uid == r.uid:
		return n.mode.Perm()>>6&bits == bits
	case n.gid == r.gid || slices.Contains(r.groups, n.gid):
		return n.mode.Perm()>>3&bits == bits
	default:
		return n.mode.Perm()&bits == bits
	}
}

const (
	mayRead = 0o4
	mayPass = 0o1
)

// findRights returns the rights of a container's user.
func (f *files) findRights() (rights, error) {
	ctx, cancel := context.WithTimeout(f.e.ctx, callTime)
	defer cancel()
	r, err := f.e.daemon.ContainerInspect(ctx, f.id, client.ContainerInspectOptions{})
	if err != nil {
		return rights{}, fmt.Errorf("find the container's user: %w", err)
	}
	user := ""
	if r.Container.Config != nil {
		user = r.Container.Config.User
	}
	root := &files{e: f.e, id: f.id, kept: map[string]*node{}, rights: func() (rights, error) { return rights{all: true}, nil }}
	return rightsOf(user, root), nil
}

// rightsOf returns the rights of a user, as Docker understands a user and maybe
// a group after a colon, by name or number, in a file system.
func rightsOf(user string, root fs.FS) rights {
	name, group, _ := strings.Cut(user, ":")
	if name == "" {
		return rights{all: true}
	}
	var r rights
	var err error
	r.uid, err = strconv.Atoi(name)
	for _, entry := range entries(root, "etc/passwd") {
		if uid := number(entry, 2); entry[0] == name || err == nil && uid == r.uid {
			name, r.uid, r.gid, err = entry[0], uid, number(entry, 3), nil
			break
		}
	}
	if err == nil && r.uid == 0 {
		return rights{all: true}
	}
	gid, err := strconv.Atoi(group)
	for _, entry := range entries(root, "etc/group") {
		switch id := number(entry, 2); {
		case group == "" && len(entry) > 3 && slices.Contains(strings.Split(entry[3], ","), name):
			r.groups = append(r.groups, id)
		case group != "" && entry[0] == group:
			gid, err = id, nil
		}
	}
	if group != "" && err == nil {
		r.gid = gid
	}
	return r
}

// shift is what the daemon adds to the IDs of users and groups in containers.
type shift struct{ uid, gid int }

// shiftOf returns the shift of a daemon that remaps users, which names its
// directory after it, but does not tell in any other way.
func shiftOf(info systemtypes.Info, userNamespace string) shift {
	if !slices.Contains(info.SecurityOptions, "name=userns") || userNamespace == "host" {
		return shift{}
	}
	uid, gid, _ := strings.Cut(path.Base(info.DockerRootDir), ".")
	return shift{uid: max(number([]string{uid}, 0), 0), gid: max(number([]string{gid}, 0), 0)}
}

// mostEntries bounds what is read of a table of users or groups.
const mostEntries = 1 << 20 // bytes

// entries returns the fields of each line of a table such as /etc/passwd, none
// if it cannot be read.
func entries(root fs.FS, name string) [][]string {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	content, _ := io.ReadAll(io.LimitReader(f, mostEntries)) // what could be read has to do
	var all [][]string
	for line := range strings.Lines(string(content)) {
		all = append(all, strings.Split(strings.TrimSpace(line), ":"))
	}
	return all
}

// number returns a field that is a number, -1 if it is none.
func number(fields []string, i int) int {
	if i >= len(fields) {
		return -1
	}
	n, err := strconv.Atoi(fields[i])
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// walk returns a file and its path, as a user without all rights comes to it:
// through directories that it may pass. A link at the end is followed if asked
// for.
func (f *files) walk(op, name string, follow bool, r rights) (*node, string, error) {
	if !fs.ValidPath(name) {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at, rest, links := ".", strings.Split(name, "/"), 0
	n, err := f.owned(op, ".")
	for err == nil && len(rest) > 0 {
		element := rest[0]
		rest = rest[1:]
		if element == "." || element == "" {
			continue
		}
		if !n.IsDir() {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		if !r.may(n, mayPass) {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
		}
		if element == ".." {
			// A path that leaves the root stays at the root.
			at = path.Join(".", path.Dir(at))
			n, err = f.owned(op, at)
			continue
		}
		next, nextErr := f.owned(op, path.Join(at, element))
		if nextErr != nil {
			return nil, "", nextErr
		}
		if next.mode.Type() != fs.ModeSymlink || len(rest) == 0 && !follow {
			at, n = path.Join(at, element), next
			continue
		}
		if links++; links > mostLinks {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ELOOP}
		}
		rest = append(strings.Split(next.target, "/"), rest...)
		if path.IsAbs(next.target) {
			at = "."
			n, err = f.owned(op, at)
		}
	}
	return n, at, err
}

// owned returns a file with its owner, of which only an archive tells.
func (f *files) owned(op, name string) (*node, error) {
	f.mu.Lock()
	known := f.kept[name]
	f.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(f.e.ctx, callTime)
	defer cancel()
	archive, err := f.e.daemon.CopyFromContainer(ctx, f.id, client.CopyFromContainerOptions{SourcePath: absolute(name)})
	if err != nil {
		return nil, pathError(op, name, err)
	}
	h, err := tar.NewReader(archive.Content).Next()
	_ = archive.Content.Close() // there may be more, which nobody wants
	if err != nil {
		return nil, pathError(op, name, err)
	}
	n := f.nodeOf(h)
	n.name, n.children = path.Base(name), nil
	if h.Typeflag == tar.TypeLink {
		return nil, &fs.PathError{Op: op, Path: name, Err: errors.New("the archive of a file begins with another one")}
	}
	f.mu.Lock()
	f.kept[name] = n
	f.mu.Unlock()
	return n, nil
}
