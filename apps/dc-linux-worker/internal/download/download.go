// Package download stores the artifacts of a run as files. Names and contents
// are the task's, and so not to be trusted: nothing is written outside of the
// directory.
package download

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// File is an artifact and where it is stored.
type File struct {
	Name            string `json:"name"`
	StorageType     string `json:"storageType"`
	ContentType     string `json:"contentType"`
	ContentEncoding string `json:"contentEncoding"` // in the queue; the file is decoded
	File            string `json:"file"`            // empty if there is none
}

// MakeDir makes the directory for artifacts, if need be. Called before a task
// runs, it spares whoever waits for the task a surprise at its end.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // G301: results are for whoever may read where they are stored
		return fmt.Errorf("make directory for artifacts: %w", err)
	}
	return nil
}

// All stores the artifacts of a run in the directory dir, which is made if need
// be, each under its name. With an empty dir it stores none, and only says what
// there is. Artifacts without content get no file; those that cannot be stored
// are in the error, which is no reason not to use the files.
func All(ctx context.Context, c *client.Client, id task.RunID, dir string) ([]File, error) {
	artifacts, err := c.Artifacts(ctx, id)
	if err != nil {
		return nil, err
	}
	d := downloader{client: c, id: id, dir: dir}
	if dir != "" {
		if err := MakeDir(dir); err != nil {
			return nil, err
		}
		if d.root, err = os.OpenRoot(dir); err != nil {
			return nil, fmt.Errorf("open directory for artifacts: %w", err)
		}
		defer func() { _ = d.root.Close() }()
	}
	files := []File{}
	var errs []error
	for _, a := range artifacts {
		f, err := d.one(ctx, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("artifact %q is not stored: %w", a.Name, err))
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

type downloader struct {
	client *client.Client
	id     task.RunID
	dir    string
	root   *os.Root // nil if nothing is stored
}

func (d *downloader) one(ctx context.Context, a client.Artifact) (f File, err error) {
	f = File{Name: a.Name, StorageType: a.StorageType, ContentType: a.ContentType}
	content, err := d.client.Open(ctx, d.id, a.Name)
	if err != nil || content == nil {
		return f, err
	}
	defer func() { err = errors.Join(err, content.Body.Close()) }()
	f.ContentEncoding = content.Encoding
	if f.ContentEncoding == "" {
		f.ContentEncoding = "identity"
	}
	if d.root == nil {
		return f, nil
	}
	body := io.Reader(content.Body)
	if content.Encoding == "gzip" {
		if body, err = gzip.NewReader(content.Body); err != nil {
			return f, fmt.Errorf("decode: %w", err)
		}
	}
	if err := d.store(a.Name, body); err != nil {
		return f, err
	}
	f.File = filepath.Join(d.dir, filepath.FromSlash(a.Name))
	return f, nil
}

// errName refuses names that stand for no file, or for one somewhere else.
var errName = errors.New("its name is not that of a file in the directory")

func (d *downloader) store(name string, content io.Reader) (err error) {
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." {
		return errName
	}
	if err := d.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	// What is there may be a link or shared, so that it is replaced, not written.
	if err := d.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, d.root.Remove(name))
		}
	}()
	_, err = io.Copy(file, content)
	return err
}
