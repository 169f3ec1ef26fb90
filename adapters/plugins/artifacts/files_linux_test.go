package artifacts_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// sandbox makes a directory with files of every kind, and returns it as an
// engine does: what is outside cannot be reached.
func sandbox(t *testing.T) fs.FS {
	t.Helper()
	dir := t.TempDir()
	outside := t.TempDir()
	task := filepath.Join(dir, "home/task")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(task, "out/sub"), 0o700))
	must(os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	must(os.WriteFile(filepath.Join(task, "out/file"), []byte("file"), 0o600))
	must(os.WriteFile(filepath.Join(task, "out/.hidden"), []byte("hidden"), 0o600))
	must(os.Symlink("out", filepath.Join(task, "link")))
	must(os.Symlink("file", filepath.Join(task, "out/link")))
	must(os.Symlink(filepath.Join(outside, "secret"), filepath.Join(task, "escape")))
	must(os.Symlink("../../../../../../.."+outside+"/secret", filepath.Join(task, "escape2")))
	must(os.Symlink("loop", filepath.Join(task, "loop")))
	must(os.MkdirAll(filepath.Join(task, "odd"), 0o700))
	must(os.Symlink("..", filepath.Join(task, "odd/up")))
	must(os.Symlink("nowhere", filepath.Join(task, "odd/dangling")))
	must(syscall.Mkfifo(filepath.Join(task, "odd/fifo"), 0o600))
	must(syscall.Mknod(filepath.Join(task, "odd/zero"), syscall.S_IFCHR|0o600, 1<<8|5))
	root, err := os.OpenRoot(dir)
	must(err)
	t.Cleanup(func() { must(root.Close()) })
	return root.FS()
}

func TestFilesOfEveryKind(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		want    []string
		fault   string
	}{
		{
			"links in a directory are files", `{"type": "directory", "path": "out"}`,
			[]string{
				"out/.hidden: gzip, application/octet-stream, hidden",
				"out/file: gzip, application/octet-stream, file",
				"out/link: gzip, application/octet-stream, file",
			},
			"",
		},
		{
			"a directory may be a link", `{"type": "directory", "path": "link", "name": "l"}`,
			[]string{
				"l/.hidden: gzip, application/octet-stream, hidden",
				"l/file: gzip, application/octet-stream, file",
				"l/link: gzip, application/octet-stream, file",
			},
			"",
		},
		{
			"what is no file holds up nobody", `{"type": "directory", "path": "odd"}`,
			[]string{
				"odd/dangling: file-missing-on-worker", "odd/fifo: invalid-resource-on-worker",
				"odd/up: invalid-resource-on-worker", "odd/zero: invalid-resource-on-worker",
			},
			`artifact "odd/dangling": Could not read file '/home/task/odd/dangling': it does not exist`,
		},
		{"a pipe", `{"type": "file", "path": "odd/fifo"}`, []string{"odd/fifo: invalid-resource-on-worker"}, "'/home/task/odd/fifo' is not a regular file on the worker"},
		{"a device", `{"type": "file", "path": "odd/zero"}`, []string{"odd/zero: invalid-resource-on-worker"}, "is not a regular file on the worker"},
		{"a directory for a file", `{"type": "file", "path": "out"}`, []string{"out: invalid-resource-on-worker"}, "File artifact '/home/task/out' exists as a directory, not a file, on the worker"},
		{"a file for a directory", `{"type": "directory", "path": "out/file"}`, []string{"out/file: invalid-resource-on-worker"}, "Directory artifact '/home/task/out/file' exists as a file, not a directory, on the worker"},
		{"below a file", `{"type": "file", "path": "out/file/x"}`, []string{"out/file/x: file-missing-on-worker"}, "it does not exist"},
		{"a link that leads in circles", `{"type": "file", "path": "loop"}`, []string{"loop: file-not-readable-on-worker"}, "it cannot be read"},
		{"a link out of the sandbox", `{"type": "file", "path": "escape"}`, []string{"escape: file-not-readable-on-worker"}, "it cannot be read"},
		{"a relative link out of the sandbox", `{"type": "file", "path": "escape2"}`, []string{"escape2: file-not-readable-on-worker"}, "it cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := through(t, tt.payload, sandbox(t))
			if diff := cmp.Diff(tt.want, published(d)); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
			switch {
			case tt.fault != "":
				expectFault(t, err, fault.Failure, tt.fault)
			case err != nil:
				t.Error(err)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	broken := errors.New("input/output error")
	for _, tt := range []struct {
		name  string
		file  fakeFile
		fault string
	}{
		{"may not be opened", fakeFile{size: 3, openErr: fs.ErrPermission}, "the task's user may not read it"},
		{"break half-way", fakeFile{size: 9, content: "abc", readErr: broken}, "it cannot be read"},
		{"shrink", fakeFile{size: 9, content: "abc"}, "it has changed from 9 to 3 bytes"},
		{"grow", fakeFile{size: 1, content: "abc", later: 3}, "it has changed from 1 to 3 bytes"},
		{"grow without end", fakeFile{size: 1, content: strings.Repeat("x", 1<<20), later: 1 << 20, endless: true}, "it has changed from 1 to 1048576 bytes"},
	} {
		for _, encoding := range []string{"gzip", "identity"} {
			t.Run(tt.name+" as "+encoding, func(t *testing.T) {
				payload := `{"type": "file", "path": "x", "contentEncoding": "` + encoding + `"}`
				d, err := through(t, payload, tt.file)
				expectFault(t, err, fault.Failure, `artifact "x": Could not read file '/home/task/x': `+tt.fault)
				if diff := cmp.Diff([]string{"x: file-not-readable-on-worker"}, published(d)); diff != "" {
					t.Errorf("artifacts (-want +got):\n%s", diff)
				}
				if _, err = through(t, strings.TrimSuffix(payload, "}")+`, "optional": true}`, tt.file); err != nil {
					t.Errorf("optional: %v", err)
				}
			})
		}
	}
}

func TestFileThatOnlyLooksEmpty(t *testing.T) {
	// Files of /proc say that they are empty, and some never end.
	file := fakeFile{content: "kernel log", endless: true}
	d, err := through(t, `{"type": "file", "path": "x"}`, file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x: gzip, application/octet-stream, "}, published(d)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

// fakeFile is a file system in which every name is the one file.
type fakeFile struct {
	size    int64 // as it is found
	later   int64 // as it is once read; size if 0
	content string
	endless bool
	openErr error
	readErr error // after content; io.EOF if nil
}

func (f fakeFile) Open(string) (fs.File, error) {
	if f.openErr != nil {
		return nil, f.openErr
	}
	return &opened{fakeFile: f, rest: strings.NewReader(f.content)}, nil
}

func (f fakeFile) Stat(string) (fs.FileInfo, error) { return stat(f.size), nil }

type opened struct {
	fakeFile
	rest *strings.Reader
}

func (o *opened) Stat() (fs.FileInfo, error) { return stat(max(o.size, o.later)), nil }

func (o *opened) Read(p []byte) (int, error) {
	n, err := o.rest.Read(p)
	if errors.Is(err, io.EOF) {
		if o.endless {
			o.rest.Reset(o.content)
			return o.rest.Read(p)
		}
		if o.readErr != nil {
			err = o.readErr
		}
	}
	return n, err
}

func (o *opened) Close() error { return nil }

type stat int64

func (s stat) Name() string       { return "x" }
func (s stat) Size() int64        { return int64(s) }
func (s stat) Mode() fs.FileMode  { return 0o600 }
func (s stat) ModTime() time.Time { return time.Time{} }
func (s stat) IsDir() bool        { return false }
func (s stat) Sys() any           { return nil }
