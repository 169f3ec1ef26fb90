package jail

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "secret of the host"

// newJail returns a jail with files of a user, beside a secret that is no part of it.
func newJail(tb testing.TB, as *Identity) (FS, string) {
	tb.Helper()
	top := tb.TempDir()
	root := filepath.Join(top, "root")
	for _, dir := range []string{"a/b", "closed"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"a/b/file": "content", "a/empty": "", "private": "of root", "closed/x": "x", "../secret": secret,
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"inside": "/a/b", "up": strings.Repeat("../", 30) + "a/b/file", "out": filepath.Join(top, "secret"),
		"sibling": "../secret", "loop": "loop", "magic": "/proc/self/root/etc/passwd", "dangling": "missing",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(root, "private"), 0o600), os.Chmod(filepath.Join(root, "closed"), 0o700),
		unix.Mkfifo(filepath.Join(root, "pipe"), 0o666)); err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	dir := os.NewFile(uintptr(fd), root)
	tb.Cleanup(func() { _ = dir.Close() })
	return FS{Root: dir, As: as}, root
}

var nobody = &Identity{UID: 65534, GID: 65534}

func TestReadsWithTheRightsOfAnIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		err     error
	}{
		"a/b/file":    {content: "content"},
		"inside/file": {content: "content"},
		"up":          {content: "content"},
		"a/empty":     {},
		"private":     {err: fs.ErrPermission},
		"closed/x":    {err: fs.ErrPermission},
		"out":         {err: fs.ErrNotExist},
		"sibling":     {err: fs.ErrNotExist},
		"dangling":    {err: fs.ErrNotExist},
		"magic":       {err: fs.ErrNotExist},
		"loop":        {err: unix.ELOOP},
		"pipe":        {err: errIrregular},
		"a/b":         {err: unix.EISDIR},
		"../secret":   {err: fs.ErrInvalid},
		"/a/b/file":   {err: fs.ErrInvalid},
		"a\x00b":      {err: unix.EINVAL},
	} {
		t.Run(strings.ToValidUTF8(path.Clean(name), "?"), func(t *testing.T) {
			f, _ := newJail(t, nobody)
			got, err := fs.ReadFile(f, name)
			if string(got) != c.content || !errors.Is(err, c.err) {
				t.Errorf("read %q, %v; want %q, %v", got, err, c.content, c.err)
			}
		})
	}
	f, _ := newJail(t, nil)
	if got, err := fs.ReadFile(f, "private"); err != nil || string(got) != "of root" {
		t.Errorf("without an identity, read %q, %v", got, err)
	}
}

func TestThreadsGetTheirRightsBack(t *testing.T) {
	f, root := newJail(t, nobody)
	for range 100 {
		if _, err := f.Open("private"); !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(filepath.Join(root, "private")); err != nil {
			t.Fatalf("the worker has lost its rights: %v", err)
		}
	}
}

func TestIsAFileSystem(t *testing.T) {
	f, root := newJail(t, nobody)
	for _, name := range []string{"private", "closed", "loop", "pipe", "out", "sibling", "magic", "dangling"} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fstest.TestFS(f, "a/b/file", "a/empty", "inside"); err != nil {
		t.Error(err)
	}
}

func TestFilesCanSeek(t *testing.T) {
	f, _ := newJail(t, nobody)
	file, err := f.Open("a/b/file")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.(io.Seeker).Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(file); err != nil || string(got) != "ent" {
		t.Errorf("after Seek, read %q, %v", got, err)
	}
	buf := make([]byte, 3)
	if _, err := file.(io.ReaderAt).ReadAt(buf, 0); err != nil || string(buf) != "con" {
		t.Errorf("ReadAt read %q, %v", buf, err)
	}
}

func TestLinksAreSeen(t *testing.T) {
	f, _ := newJail(t, nobody)
	if got, err := fs.ReadLink(f, "dangling"); got != "missing" || err != nil {
		t.Errorf("ReadLink returned %q, %v", got, err)
	}
	if got, err := fs.ReadLink(f, "a"); err == nil {
		t.Errorf("ReadLink of a directory returned %q", got)
	}
	if info, err := fs.Lstat(f, "loop"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat returned %v, %v", info, err)
	}
	if info, err := fs.Stat(f, "inside"); err != nil || !info.IsDir() {
		t.Errorf("Stat returned %v, %v", info, err)
	}
}

func FuzzNoNameLeadsOut(f *testing.F) {
	for _, name := range []string{".", "a/b/file", "out", "sibling", "inside/../../secret", "../secret", "inside/file", "a//b", "loop/x"} {
		f.Add(name)
	}
	jail, _ := newJail(f, nobody)
	f.Fuzz(func(t *testing.T, name string) {
		got, err := fs.ReadFile(jail, name)
		if strings.Contains(string(got), secret) || string(got) == "of root" {
			t.Errorf("%q leads to %q", name, got)
		}
		if err != nil && !errors.As(err, new(*fs.PathError)) {
			t.Errorf("%q returned %v, which names no file", name, err)
		}
		if _, err := fs.ReadDir(jail, name); err == nil && !fs.ValidPath(name) {
			t.Errorf("%q is a directory", name)
		}
	})
}
