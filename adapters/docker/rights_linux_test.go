package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

// importWith makes an image of the test image's files and others, for the time
// of the test.
func importWith(tb testing.TB, name string, others []*tar.Header) {
	tb.Helper()
	archive, err := dockertest.Busybox()
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = io.Copy(w, r)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	for _, h := range others {
		content := []byte(h.Name)
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		err := w.WriteHeader(h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write(content)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	c, err := daemon.Client()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_, err := c.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true})
		if err := errors.Join(err, c.Close()); err != nil {
			tb.Error(err)
		}
	})
	answer, err := c.ImageImport(tb.Context(), client.ImageImportSource{Source: &b, SourceName: "-"}, name, client.ImageImportOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	_, err = io.Copy(io.Discard, answer)
	if err := errors.Join(err, answer.Close()); err != nil {
		tb.Fatal(err)
	}
}

// The daemon reads as root, but a task is not to get at what its user cannot.
func TestFilesAreReadWithTheRightsOfTheTask(t *testing.T) {
	const name = "rights:test"
	dir := func(name string, uid int, mode int64) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeDir, Uid: uid, Gid: uid, Mode: mode}
	}
	file := func(name string, uid int, mode int64) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Uid: uid, Gid: uid, Mode: mode}
	}
	importWith(t, name, []*tar.Header{
		dir("closed/", 0, 0o700), file("closed/file", 0, 0o644),
		dir("passable/", 0, 0o711), file("passable/file", 0, 0o644), file("passable/secret", 0, 0o600),
		dir("open/", 0, 0o755), file("open/file", 0, 0o644), file("open/secret", 0, 0o600), file("open/mine", 1000, 0o600),
		file("open/group", 0, 0o640), dir("open/sub/", 0, 0o700), file("open/sub/file", 0, 0o644),
	})
	script := `cd /tmp; ln -s /closed/file link; ln -s ../open/mine fine; ln -s /closed into; ln -s loop loop; echo a > unreadable; chmod 0 unreadable; ln /open/mine hard; ln -s ../../../../open/../open/./file dots`
	for _, tt := range []struct {
		user             string
		readable, denied []string
		listable, closed []string
		walked           string
	}{
		{
			user:     "worker",
			readable: []string{"passable/file", "open/file", "open/mine", "tmp/fine", "tmp/hard", "tmp/dots", "etc/passwd"},
			denied:   []string{"closed/file", "passable/secret", "open/secret", "open/group", "open/sub/file", "tmp/link", "tmp/into/file", "tmp/unreadable"},
			listable: []string{"open", "tmp", "."}, closed: []string{"closed", "passable", "open/sub", "tmp/into"},
			walked: "open/file open/mine",
		},
		{
			user:     "worker:0",
			readable: []string{"open/file", "open/group"}, denied: []string{"closed/file", "open/secret"},
			listable: []string{"open"}, closed: []string{"closed"},
			walked: "open/file open/group open/mine",
		},
		{
			user:     "root",
			readable: []string{"closed/file", "passable/secret", "open/secret", "open/sub/file", "tmp/link", "tmp/into/file", "tmp/unreadable"},
			listable: []string{"closed", "passable", "open/sub", "tmp/into"},
			walked:   "open/file open/group open/mine open/secret open/sub/file",
		},
	} {
		t.Run(tt.user, func(t *testing.T) {
			e := open(t, docker.Config{Egress: docker.EgressNone})
			p := shell(script)
			p["image"], p["user"] = name, tt.user
			r, log := run(t, e, p)
			if !r.Result().Success {
				t.Fatalf("result %+v:\n%s", r.Result(), log)
			}
			files := r.FS()
			for _, name := range tt.readable {
				if _, err := fs.ReadFile(files, name); err != nil {
					t.Error(err)
				}
			}
			for _, name := range tt.denied {
				if got, err := fs.ReadFile(files, name); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("%s: %q, %v, want that it may not be read", name, got, err)
				}
			}
			for _, name := range tt.listable {
				if found, err := fs.ReadDir(files, name); err != nil || len(found) == 0 {
					t.Errorf("%s: %v, %v", name, found, err)
				}
			}
			for _, name := range tt.closed {
				if found, err := fs.ReadDir(files, name); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("%s: %v, %v, want that it may not be listed", name, found, err)
				}
			}
			for _, name := range []string{"tmp/loop", "tmp/missing", "open/file/x"} {
				if _, err := fs.Stat(files, name); err == nil || errors.Is(err, fs.ErrPermission) {
					t.Errorf("%s: %v", name, err)
				}
			}
			var walked []string
			_ = fs.WalkDir(files, "open", func(name string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					if _, err := fs.ReadFile(files, name); err == nil {
						walked = append(walked, name)
					}
				}
				return nil
			})
			if got := strings.Join(walked, " "); got != tt.walked {
				t.Errorf("a walk reads %q, want %q", got, tt.walked)
			}
			if target, err := fs.ReadLink(files, "tmp/link"); target != "/closed/file" || err != nil {
				t.Errorf("tmp/link leads to %q, %v", target, err)
			}
		})
	}
}
