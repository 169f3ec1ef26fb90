package download

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

var id = task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 0}

// content is what a queue has under a name.
type content struct {
	name, encoding string
	body           []byte
	elsewhere      bool // it redirects to another host
	broken         bool // it is an error in place of an artifact
}

// serve serves the artifacts of a run, two to a page.
func serve(t *testing.T, contents ...content) *client.Client {
	t.Helper()
	const api = "/api/queue/v1/task/fN1SbArXTPSVFNUvaOlinQ/runs/0/artifacts"
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, err := url.PathUnescape(r.URL.EscapedPath())
		if err != nil {
			t.Error(err)
		}
		if path == api {
			list(t, w, r.URL.Query().Get("continuationToken"), contents)
			return
		}
		for _, c := range contents {
			switch {
			case path == api+"/"+c.name && c.broken:
				w.WriteHeader(http.StatusFailedDependency)
				return
			case path == api+"/"+c.name && c.elsewhere:
				w.Header().Set("Location", "http://127.0.0.1:1/metadata")
				w.WriteHeader(http.StatusSeeOther)
				return
			case path == api+"/"+c.name:
				w.Header().Set("Location", server.URL+"/content?name="+url.QueryEscape(c.name))
				w.WriteHeader(http.StatusSeeOther)
				return
			case path == "/content" && r.URL.Query().Get("name") == c.name:
				if c.encoding != "" {
					w.Header().Set("Content-Encoding", c.encoding)
				}
				if _, err := w.Write(c.body); err != nil {
					t.Error(err)
				}
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	c, disconnect := client.New(server.URL, task.Credentials{ClientID: "me", AccessToken: "secret"})
	t.Cleanup(disconnect)
	return c
}

func list(t *testing.T, w http.ResponseWriter, token string, contents []content) {
	t.Helper()
	var page struct {
		Artifacts []client.Artifact `json:"artifacts"`
		Next      string            `json:"continuationToken,omitempty"`
	}
	first := len(token) // "xx" stands for 2
	for i := first; i < min(first+2, len(contents)); i++ {
		page.Artifacts = append(page.Artifacts, client.Artifact{Name: contents[i].name, StorageType: "s3", ContentType: "text/plain"})
	}
	if first+2 < len(contents) {
		page.Next = strings.Repeat("x", first+2)
	}
	if err := json.NewEncoder(w).Encode(page); err != nil {
		t.Error(err)
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAll(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "a", "out")
	c := serve(
		t,
		content{name: "public/plain", body: []byte("plain")},
		content{name: "public/zipped", encoding: "gzip", body: zipped(t, "zipped")},
		content{name: "public/page.gz", body: zipped(t, "not decoded")},
		content{name: "public/error", broken: true},
		content{name: "public/elsewhere", elsewhere: true},
	)
	got, err := All(t.Context(), c, id, dir)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, encoding, path string) File {
		return File{Name: name, StorageType: "s3", ContentType: "text/plain", ContentEncoding: encoding, File: path}
	}
	want := []File{
		file("public/plain", "identity", filepath.Join(dir, "public/plain")),
		file("public/zipped", "gzip", filepath.Join(dir, "public/zipped")),
		file("public/page.gz", "identity", filepath.Join(dir, "public/page.gz")),
		file("public/error", "", ""),
		file("public/elsewhere", "", ""),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{"public/plain": "plain", "public/zipped": "zipped", "public/page.gz": string(zipped(t, "not decoded"))} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
			t.Errorf("%s has %q, %v; want %q", name, got, err, want)
		}
	}

	// The second time, without a directory, it is only said what there is.
	got, err = All(t.Context(), c, id, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].File = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files without a directory (-want +got):\n%s", diff)
	}
}

// Whatever artifacts are called, all is as it was outside of the directory.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{
		"../escaped", "..", ".", "/escaped", "a/../../escaped", "a/../b", "a//b", "a/", "./a", "link/escaped", "link",
		"file/below", strings.Repeat("a", 300), "directory",
	} {
		t.Run(name[:min(len(name), 20)], func(t *testing.T) {
			outside := t.TempDir()
			dir := filepath.Join(outside, "out")
			victim := filepath.Join(outside, "victim")
			for _, err := range []error{
				os.MkdirAll(filepath.Join(dir, "directory", "full"), 0o755),
				os.Mkdir(victim, 0o755),
				os.Symlink(victim, filepath.Join(dir, "link")),
				os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			c := serve(t, content{name: name, body: []byte("x")}, content{name: "good", body: []byte("good")})
			files, err := All(t.Context(), c, id, dir)
			if name == "link" { // which it replaces
				if err != nil {
					t.Errorf("link is not replaced: %v", err)
				}
			} else if err == nil || files[0].File != "" {
				t.Errorf("stored as %q", files[0].File)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "good")); string(got) != "good" || err != nil {
				t.Errorf("another artifact has %q, %v", got, err)
			}
			entries, err := os.ReadDir(outside)
			if err != nil || len(entries) != 2 {
				t.Errorf("outside there is %v, %v", entries, err)
			}
			if entries, err := os.ReadDir(victim); err != nil || len(entries) != 0 {
				t.Errorf("behind the link there is %v, %v", entries, err)
			}
		})
	}
}

// What cannot be decoded leaves no half of a file.
func TestBrokenContent(t *testing.T) {
	dir := t.TempDir()
	whole := zipped(t, strings.Repeat("content", 1000))
	c := serve(t, content{name: "a", encoding: "gzip", body: []byte("not gzip")}, content{name: "b", encoding: "gzip", body: whole[:len(whole)-9]})
	files, err := All(t.Context(), c, id, dir)
	if err == nil || len(files) != 2 || files[0].File != "" || files[1].File != "" {
		t.Errorf("files are %+v, %v", files, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("directory has %v, %v", entries, err)
	}
}
