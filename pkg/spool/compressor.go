package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// chunk is how much is compressed at a time. It is always the same, so that the
// same content always has the same compressed form.
const chunk = 64 << 10

// level is where more effort begins to cost far more time than it saves space.
const level = 3

// workspace is what compressing takes, which is most of a megabyte.
type workspace struct {
	gz    *gzip.Writer
	out   bytes.Buffer
	chunk []byte
}

var workspaces = sync.Pool{New: func() any {
	gz, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		gz = gzip.NewWriter(nil)
	}
	return &workspace{gz: gz, chunk: make([]byte, chunk)}
}}

// compressor reads compressed what source yields.
type compressor struct {
	*workspace
	ctx    context.Context // of the one who reads, to whom Read cannot be told
	source io.Reader
	read   int64 // bytes of the source
	err    error
}

func newCompressor(ctx context.Context, source io.Reader) *compressor {
	w := workspaces.Get().(*workspace) // the pool holds nothing else
	w.out.Reset()
	w.gz.Reset(&w.out)
	return &compressor{workspace: w, ctx: ctx, source: source}
}

// release ends the use of a compressor.
func (c *compressor) release() {
	if c.workspace != nil {
		workspaces.Put(c.workspace)
		c.workspace = nil
		c.err = io.ErrClosedPipe
	}
}

func (c *compressor) Read(p []byte) (int, error) {
	for c.err == nil && c.out.Len() == 0 {
		c.err = c.step()
	}
	if c.workspace != nil && c.out.Len() > 0 {
		return c.out.Read(p)
	}
	return 0, c.err
}

// step compresses one chunk.
func (c *compressor) step() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	n, err := 0, error(nil)
	for n < len(c.chunk) && err == nil {
		var more int
		more, err = c.source.Read(c.chunk[n:])
		n += more
	}
	c.read += int64(n)
	if _, werr := c.gz.Write(c.chunk[:n]); werr != nil {
		return werr
	}
	if errors.Is(err, io.EOF) {
		if cerr := c.gz.Close(); cerr != nil {
			return cerr
		}
	}
	return err
}

// recompressed is compressed content that is made as it is read.
type recompressed struct {
	*compressor
	source io.Closer
}

func (r *recompressed) Close() error {
	r.release()
	return r.source.Close()
}
