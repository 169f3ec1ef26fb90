package docker

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"

	"github.com/moby/moby/client"
)

// regular is an open file.
type regular struct {
	node    *node
	content io.ReadCloser
}

// Stat implements fs.File.
func (r *regular) Stat() (fs.FileInfo, error) { return r.node, nil }

// Read implements fs.File.
func (r *regular) Read(p []byte) (int, error) { return r.content.Read(p) }

// Close implements fs.File.
func (r *regular) Close() error { return r.content.Close() }

// mostBreaks is how often the reading of one file may break off.
const mostBreaks = 5

// stream is the content of a file, as the daemon sends it. Where a daemon goes
// away amid that, it is asked again for what is missing: the file does not
// change any more.
type stream struct {
	f        *files
	name, at string

	archive io.ReadCloser
	content *tar.Reader
	read    int64 // bytes
	breaks  int
}

// open has the daemon send the file from its start.
func (s *stream) open() (*node, error) {
	var archive client.CopyFromContainerResult
	err := s.f.e.again(func() (err error) {
		archive, err = s.f.e.daemon.CopyFromContainer(s.f.e.ctx, s.f.id, client.CopyFromContainerOptions{SourcePath: absolute(s.at)})
		return err
	})
	if err != nil {
		return nil, pathError("open", s.name, err)
	}
	t := tar.NewReader(archive.Content)
	h, err := t.Next()
	if err == nil && h.Typeflag != tar.TypeReg {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(pathError("open", s.name, err), archive.Content.Close())
	}
	s.archive, s.content = archive.Content, t
	return s.f.nodeOf(h), nil
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for {
		n, err := s.content.Read(p)
		s.read += int64(n)
		if err == nil || !wentAway(err) || s.breaks >= mostBreaks {
			return n, err
		}
		if n > 0 {
			return n, nil // the next call meets the error again
		}
		s.breaks++
		if err := s.resume(); err != nil {
			return 0, err
		}
	}
}

// resume goes on where reading broke off.
func (s *stream) resume() error {
	broken := s.archive
	if _, err := s.open(); err != nil {
		return err
	}
	_ = broken.Close() // which is of no use any more
	if _, err := io.CopyN(io.Discard, s.content, s.read); err != nil && !wentAway(err) {
		return pathError("read", s.name, err)
	}
	return nil
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.archive.Close() }
