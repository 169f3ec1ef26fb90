package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// Whatever the archive, what the daemon gets has one image with one tag.
func FuzzRewrite(f *testing.F) {
	pack := func(files ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			err := w.WriteHeader(&tar.Header{Name: files[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[i+1]))})
			if err == nil {
				_, err = io.WriteString(w, files[i+1])
			}
			if err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(pack("manifest.json", `[{"Config": "a.json", "RepoTags": ["x:y"], "Layers": ["b"]}]`, "repositories", `{}`))
	f.Add(pack("index.json", `{"manifests": [{"digest": "sha256:aa"}]}`, "blobs/sha256/aa", `{"config": {"digest": "sha256:bb"}, "layers": []}`))
	f.Add(pack("./manifest.json", `[]`))
	f.Fuzz(func(t *testing.T, archive []byte) {
		var out bytes.Buffer
		if err := rewrite(&out, bytes.NewReader(archive), "own:tag"); err != nil {
			return
		}
		manifests := 0
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Name != "manifest.json" {
				continue
			}
			manifests++
			var all []manifest
			if err := json.NewDecoder(r).Decode(&all); err != nil || len(all) != 1 || len(all[0].RepoTags) != 1 || all[0].RepoTags[0] != "own:tag" {
				t.Errorf("the manifest is %+v, %v", all, err)
			}
		}
		if manifests != 1 {
			t.Errorf("there are %d manifests", manifests)
		}
	})
}
