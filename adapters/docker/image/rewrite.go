package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// manifest is an entry of manifest.json, in an archive of docker save.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// descriptor points at a blob in an archive of the OCI layout.
type descriptor struct {
	Digest string `json:"digest"`
}

const (
	largestDocument = 4 << 20  // bytes of a JSON document that says what is in the archive
	allDocuments    = 32 << 20 // bytes of all that may be one
)

// rewrite copies an archive of docker save, in its old form or in the OCI
// layout, so that it holds one image with one tag, whatever tags it came with:
// an archive must not take the names of other images. The archive is read once,
// and ends with what says what is in it, which is all the same to the daemon.
func rewrite(to io.Writer, from io.Reader, tag string) error {
	out := tar.NewWriter(to)
	documents := map[string][]byte{}
	room := allDocuments
	for in := tar.NewReader(from); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		name := path.Clean(h.Name)
		var content io.Reader = in
		if h.Typeflag == tar.TypeReg && h.Size <= largestDocument && mayBeDocument(name) && int(h.Size) <= room {
			raw, err := io.ReadAll(in)
			if err != nil {
				return fmt.Errorf("read archive: %w", err)
			}
			if json.Valid(raw) {
				documents[name] = raw
				room -= len(raw)
			}
			content = bytes.NewReader(raw)
		}
		switch name {
		case "manifest.json", "repositories", "index.json", "oci-layout":
			continue // a daemon that found an index would go by that
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("copy archive: %w", err)
		}
		if _, err := io.Copy(out, content); err != nil {
			return fmt.Errorf("copy archive: %w", err)
		}
	}
	m, err := only(documents)
	if err != nil {
		return err
	}
	// What follows the end of the archive is no part of it, but must be read.
	if _, err := io.Copy(io.Discard, from); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	m.RepoTags = []string{tag}
	raw, err := json.Marshal([]manifest{m})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	err = out.WriteHeader(&tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(raw))})
	if err == nil {
		_, err = out.Write(raw)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// mayBeDocument reports whether a file may say what is in the archive.
func mayBeDocument(name string) bool {
	return name == "manifest.json" || name == "index.json" || strings.HasPrefix(name, "blobs/")
}

// only returns the only image of an archive.
func only(documents map[string][]byte) (manifest, error) {
	raw, old := documents["manifest.json"]
	if !old {
		return onlyOCI(documents)
	}
	var all []manifest
	if err := json.Unmarshal(raw, &all); err != nil {
		return manifest{}, fmt.Errorf("read manifest.json: %w", err)
	}
	if len(all) == 0 {
		return manifest{}, errEmpty
	}
	if len(all) > 1 {
		return manifest{}, fmt.Errorf("the archive holds %d images, must be one", len(all))
	}
	return all[0], nil
}

// onlyOCI returns the only image of an archive in the OCI layout.
func onlyOCI(documents map[string][]byte) (manifest, error) {
	raw, ok := documents["index.json"]
	if !ok {
		return manifest{}, errEmpty
	}
	// An index may lead to another one, that of one image for several platforms.
	for range 3 {
		var d struct {
			Manifests []descriptor `json:"manifests"`
			Config    descriptor   `json:"config"`
			Layers    []descriptor `json:"layers"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return manifest{}, fmt.Errorf("read index: %w", err)
		}
		if d.Config.Digest != "" {
			m := manifest{Config: blob(d.Config)}
			for _, l := range d.Layers {
				m.Layers = append(m.Layers, blob(l))
			}
			return m, nil
		}
		if len(d.Manifests) != 1 {
			return manifest{}, fmt.Errorf("the archive holds %d images, must be one", len(d.Manifests))
		}
		if raw, ok = documents[blob(d.Manifests[0])]; !ok {
			return manifest{}, fmt.Errorf("the archive lacks the manifest %s", d.Manifests[0].Digest)
		}
	}
	return manifest{}, errEmpty
}

// blob returns the path of what a descriptor points at.
func blob(d descriptor) string { return "blobs/" + strings.ReplaceAll(d.Digest, ":", "/") }
