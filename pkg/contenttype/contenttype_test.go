package contenttype_test

import (
	"mime"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/pkg/contenttype"
)

func TestByName(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"live.log", "text/plain; charset=utf-8"},
		{"LIVE.LOG", "text/plain; charset=utf-8"},
		{"public/a.b/events.jsonl", "application/jsonl"},
		{"target.tar.gz", "application/gzip"},
		{"index.html", "text/html; charset=utf-8"},
		{"report.json", "application/json"},
		{"shot.png", "image/png"},
		{"Makefile", contenttype.Unknown},
		{"public/a.log/core", contenttype.Unknown},
		{"x.unheard-of", contenttype.Unknown},
		{"", contenttype.Unknown},
		{".", contenttype.Unknown},
		{"a.", contenttype.Unknown},
	} {
		if got := contenttype.ByName(tt.name); got != tt.want {
			t.Errorf("ByName(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCompressed(t *testing.T) {
	const all = "7z aab apk br bz2 deb dmg flv gif gz jar jpeg jpg lz lz4 mz npz pkg png swf sz tbz tgz wasm webp whl woff woff2 xpi xz zip zst zz"
	for ext := range strings.FieldsSeq(all) {
		for _, name := range []string{"a." + ext, "d.x/A.B." + strings.ToUpper(ext)} {
			if !contenttype.Compressed(name) {
				t.Errorf("%q is not known to be compressed", name)
			}
		}
	}
	for _, name := range []string{"", "gz", "a.tar", "a.gz.log", "a.gz/b", "a.json"} {
		if contenttype.Compressed(name) {
			t.Errorf("%q is taken for compressed", name)
		}
	}
}

// Whatever the name, the type can be sent as a header.
func FuzzByName(f *testing.F) {
	for _, name := range []string{"a.log", "a.\r\nX: y", "a.İ", ".", "\xff.\xff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := contenttype.ByName(name)
		if _, _, err := mime.ParseMediaType(got); err != nil {
			t.Errorf("ByName(%q) = %q: %v", name, got, err)
		}
		if again := contenttype.ByName("dir.gz/" + name); again != got && !strings.Contains(name, "/") && name != "" {
			t.Errorf("in a directory %q is %q, but %q by itself", name, again, got)
		}
	})
}
