// Package spool compresses content whose compressed size must be known before
// it is transferred, and keeps the result until it has been.
package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Gzip is content in the gzip format. What is small is kept in memory, what is
// large in a temporary file. Where there is no room for that file, nothing is
// kept, and the content is compressed again each time it is opened.
type Gzip struct {
	open    func() (io.ReadCloser, error)
	size    int64
	length  int64
	memory  []byte
	file    *os.File
	dropped bool
}

// New compresses what open yields. Up to inMemory bytes of the result are kept
// in memory; more is in a file in dir, or in the system's directory for
// temporary files if dir is empty. open may be called again later, and must
// then yield the same.
//
// Errors: those of open and of what it returned, and ctx's.
func New(ctx context.Context, dir string, inMemory int, open func() (io.ReadCloser, error)) (*Gzip, error) {
	source, err := open()
	if err != nil {
		return nil, err
	}
	defer source.Close()
	g := &Gzip{open: open}
	k := &keeper{g: g, dir: dir, inMemory: inMemory}
	c := newCompressor(ctx, source)
	_, err = io.Copy(k, c)
	c.release()
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.length = c.read
	return g, nil
}

// Size returns how many bytes Open yields.
func (g *Gzip) Size() int64 { return g.size }

// Length returns how many bytes were compressed.
func (g *Gzip) Length() int64 { return g.length }

// Open returns the compressed content from its start. The reader must be closed
// before g is.
func (g *Gzip) Open() (io.ReadCloser, error) {
	switch {
	case g.dropped:
		source, err := g.open()
		if err != nil {
			return nil, err
		}
		return &recompressed{newCompressor(context.Background(), source), source}, nil
	case g.file != nil:
		return io.NopCloser(io.NewSectionReader(g.file, 0, g.size)), nil
	default:
		return io.NopCloser(bytes.NewReader(g.memory)), nil
	}
}

// Close frees what is kept. It is idempotent.
func (g *Gzip) Close() error {
	g.memory = nil
	if g.file == nil {
		return nil
	}
	f := g.file
	g.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close spooled content: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove spooled content: %w", err)
	}
	return nil
}

// keeper is the writer that decides where compressed content is kept.
type keeper struct {
	g        *Gzip
	dir      string
	inMemory int
}

// Write never fails: content that cannot be kept is dropped and made again.
func (k *keeper) Write(p []byte) (int, error) {
	g := k.g
	g.size += int64(len(p))
	switch {
	case g.dropped:
	case g.file == nil && len(g.memory)+len(p) <= k.inMemory:
		g.memory = append(g.memory, p...)
	default:
		if err := k.toFile(p); err != nil {
			g.dropped = true
			_ = g.Close() // there is no use for the file any more
		}
	}
	return len(p), nil
}

func (k *keeper) toFile(p []byte) error {
	g := k.g
	if g.file == nil {
		f, err := os.CreateTemp(k.dir, "spool-*.gz")
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		g.file = f
		// Without a name it cannot be left behind. Where the system does not
		// remove open files, Close does.
		_ = os.Remove(f.Name())
		if _, err := f.Write(g.memory); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		g.memory = nil
	}
	if _, err := g.file.Write(p); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
