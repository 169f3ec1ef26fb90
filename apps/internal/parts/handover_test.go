package parts

import (
	"os"
	"path/filepath"
	"testing"
)

// Versions may be installed side by side, and a link lead to the one in use.
func TestNextProgramIsWhereTheNameLeadsByThen(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link, other := filepath.Join(dir, "worker"), filepath.Join(dir, "other")
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Chdir(dir)
	for _, tt := range []struct{ what, name, want string }{
		{"the program", program, program},
		{"a link to it", link, link},
		{"a link by a relative path", "./worker", link},
		{"a link in PATH", "worker", link},
		{"another file", other, program},
		{"nothing", "(worker)", program},
		{"no name", "", program},
	} {
		if got := programOf(tt.name); got != tt.want {
			t.Errorf("called by %s, the next program is %s, want %s", tt.what, got, tt.want)
		}
	}
}
