package native

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a task leaves in its directories, and what root did to them for it, is
// nothing to the next one in the same place.
func TestPlacesAreUsedAgainAsIfNew(t *testing.T) {
	e := open(t, Config{})
	first := berthOf(t, e)
	want := layout(t, first.dir)

	tmp := filepath.Join(first.dir, "tmp")
	deep := filepath.Join(tmp, strings.Repeat("d/", 3*maxDepth))
	for _, err := range []error{
		os.MkdirAll(deep, 0o700),
		os.WriteFile(filepath.Join(deep, "file"), []byte("text"), 0o600),
		os.Symlink("/etc", filepath.Join(first.dir, "var-tmp", "link")),
		os.Mkdir(filepath.Join(first.dir, workName, "closed"), 0),
		os.Chmod(filepath.Join(first.dir, workName), 0o777),
		os.Chmod(tmp, 0o700),
		os.WriteFile(filepath.Join(first.dir, outputName), []byte("printed"), 0o600),
		first.tell([]byte("{}")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	leave(t, e, first)
	second := berthOf(t, e)
	if second.dir != first.dir {
		t.Errorf("the next berth is in %s and not in %s", second.dir, first.dir)
	}
	if diff := cmp.Diff(want, layout(t, second.dir)); diff != "" {
		t.Errorf("what the next task finds is not what the first one did (-want +got):\n%s", diff)
	}
	leave(t, e, second)
}

// berthOf prepares a berth that is not in the pool.
func berthOf(t *testing.T, e *Engine) *berth {
	t.Helper()
	b, err := e.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leave gives a berth and its place back.
func leave(t *testing.T, e *Engine, b *berth) {
	t.Helper()
	if err := e.vacate(t.Context(), b); err != nil {
		t.Error(err)
	}
	if err := e.places.give(b.id); err != nil {
		t.Error(err)
	}
}

// layout returns the modes of all that is in a directory, and the sizes of files.
func layout(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() == processName {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		found[strings.TrimPrefix(path, dir)] = info.Mode().String()
		if info.Mode().IsRegular() && info.Size() > 0 {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
