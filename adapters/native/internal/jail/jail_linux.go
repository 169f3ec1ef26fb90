// Package jail gives a process of high rights the files that a task could read,
// and no others.
package jail

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// FS is the file system below Root, which need not be of this process's mount
// namespace. Links are followed as though Root were the root directory. Only
// regular files and directories can be opened, so that neither a pipe nor a
// device does anything. The fs.File of a regular file is also an io.Seeker and
// an io.ReaderAt. Its methods are safe for concurrent use.
type FS struct {
	Root *os.File
	As   *Identity // whose rights count; nil for those of this process
}

var (
	_ fs.StatFS     = FS{}
	_ fs.ReadLinkFS = FS{}
)

// errIrregular is returned for what is neither a regular file nor a directory.
var errIrregular = errors.New("neither a regular file nor a directory")

// Open implements fs.FS.
func (f FS) Open(name string) (fs.File, error) {
	var file *os.File
	var stat unix.Stat_t
	err := f.do("open", name, func() error {
		fd, err := f.resolve(name, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Fstat(fd, &stat); err != nil {
			return err
		}
		// To open a pipe or a device can block or do harm, so that what is
		// there is known first; and to know it of this very file, it is then
		// opened by its descriptor.
		if kind := stat.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
			return errIrregular
		}
		readable, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd),
			unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(readable), path.Base(name))
		return nil
	})
	if err != nil {
		return nil, err
	}
	info := newInfo(path.Base(name), &stat)
	if info.IsDir() {
		return &dir{fs: f, file: file, info: info, name: name}, nil
	}
	return &regular{file: file, info: info, name: name}, nil
}

// Stat implements fs.StatFS. It follows links.
func (f FS) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, 0) }

// Lstat implements fs.ReadLinkFS.
func (f FS) Lstat(name string) (fs.FileInfo, error) {
	return f.stat("lstat", name, unix.O_NOFOLLOW)
}

func (f FS) stat(op, name string, flags uint64) (fs.FileInfo, error) {
	var stat unix.Stat_t
	err := f.do(op, name, func() error {
		fd, err := f.resolve(name, flags)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Fstat(fd, &stat)
	})
	if err != nil {
		return nil, err
	}
	return newInfo(path.Base(name), &stat), nil
}

// ReadLink implements fs.ReadLinkFS.
func (f FS) ReadLink(name string) (string, error) {
	target := ""
	err := f.do("readlink", name, func() error {
		fd, err := f.resolve(name, unix.O_NOFOLLOW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		if errors.Is(err, unix.ENOENT) {
			err = unix.EINVAL // it exists, but is no link
		}
		target = string(buf[:max(n, 0)])
		return err
	})
	return target, err
}

// resolve returns a descriptor that stands for the file, but cannot read it.
func (f FS) resolve(name string, flags uint64) (int, error) {
	for {
		fd, err := unix.Openat2(int(f.Root.Fd()), name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		// The kernel gives up when something is renamed meanwhile.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// do checks the name, runs what with the rights of the task, and says which
// file an error is about.
func (f FS) do(op, name string, what func() error) error {
	err := fs.ErrInvalid
	if fs.ValidPath(name) {
		err = f.As.run(what)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// regular is an open regular file.
type regular struct {
	file *os.File
	info info
	name string
}

var (
	_ io.ReadSeekCloser = (*regular)(nil)
	_ io.ReaderAt       = (*regular)(nil)
)

func (r *regular) Stat() (fs.FileInfo, error)               { return r.info, nil }
func (r *regular) Read(p []byte) (int, error)               { return r.file.Read(p) }
func (r *regular) ReadAt(p []byte, at int64) (int, error)   { return r.file.ReadAt(p, at) }
func (r *regular) Seek(at int64, whence int) (int64, error) { return r.file.Seek(at, whence) }
func (r *regular) WriteTo(w io.Writer) (int64, error)       { return r.file.WriteTo(w) }
func (r *regular) Close() error                             { return r.file.Close() }

// dir is an open directory.
type dir struct {
	fs   FS
	file *os.File
	info info
	name string
}

var _ fs.ReadDirFile = (*dir)(nil)

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return d.file.Close() }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: unix.EISDIR}
}

// ReadDir implements fs.ReadDirFile. What has vanished meanwhile is left out.
func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	for {
		names, err := d.file.Readdirnames(n)
		entries := make([]fs.DirEntry, 0, len(names))
		statErr := d.fs.As.run(func() error {
			for _, name := range names {
				var stat unix.Stat_t
				err := unix.Fstatat(int(d.file.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
				if errors.Is(err, unix.ENOENT) {
					continue
				}
				if err != nil {
					return &fs.PathError{Op: "stat", Path: path.Join(d.name, name), Err: err}
				}
				entries = append(entries, fs.FileInfoToDirEntry(newInfo(name, &stat)))
			}
			return nil
		})
		if err == nil {
			err = statErr
		}
		if n > 0 && err == nil && len(entries) == 0 {
			continue // an empty answer would mean the end
		}
		return entries, err
	}
}
