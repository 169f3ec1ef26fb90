package taskcluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/artifact"
)

var (
	errStalled = errors.New("transfer made no progress")
	errSize    = errors.New("content is not as long as announced")
)

// transferError is the answer of a bucket that did not take content.
type transferError struct {
	Status int
	Code   string // as in S3's answers; may be empty
}

// Error returns the status and the code.
func (e *transferError) Error() string {
	return fmt.Sprintf("upload: %d %s", e.Status, e.Code)
}

// final reports whether the same request would be refused again. A bucket that
// is asked too much, or too slowly, says nothing of the request.
func (e *transferError) final() bool {
	return e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
}

// put makes one attempt to transfer content to url. Its errors are those that
// reading the content yields, a transferError, an [UnreachableError], and that
// of ctx.
func (c *Client) put(ctx context.Context, url string, header http.Header, body *body) (err error) {
	ctx, end := c.tel.Span(ctx, "taskcluster.artifact.put", slog.Int64("bytes", body.size))
	defer func() { end(err) }()

	moving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(c.cfg.StallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	body.progress = func() { stall.Reset(c.cfg.StallTimeout) }

	req, err := http.NewRequestWithContext(moving, http.MethodPut, url, body)
	if err != nil {
		return errors.New("the queue returned a URL that cannot be used")
	}
	req.Header = header
	req.ContentLength = body.size
	if body.size == 0 {
		// Anything else would be sent without a length. Reading shows whether
		// there is nothing indeed.
		req.Body = http.NoBody
		_, _ = body.Read(make([]byte, 1))
	}
	resp, err := c.http.Do(req)
	if failure := body.failure(); failure != nil {
		if err == nil {
			_ = resp.Body.Close()
		}
		return failure
	}
	if err != nil {
		return unreachable(ctx, moving, req.URL.Scheme+"://"+req.URL.Host, "upload", err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if resp.StatusCode < 300 {
		if !body.whole() {
			return &transferError{Status: resp.StatusCode, Code: "answered before the end"}
		}
		return nil
	}
	var s3 struct {
		Code string `xml:"Code"`
	}
	// Not every bucket explains itself as S3 does.
	_ = xml.Unmarshal(answer, &s3)
	return &transferError{Status: resp.StatusCode, Code: s3.Code}
}

// body is the content of an artifact on its way. It must be closed, which
// ends all use of the content even while the transport still holds it.
type body struct {
	size     int64
	progress func()

	mu     sync.Mutex
	r      io.ReadCloser
	digest hash.Hash
	n      int64
	err    error
	closed bool
}

// open starts to read c. If decode is set, it decodes what is encoded, and
// computes the sum of what it reads.
func open(c artifact.Content, decode bool) (*body, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	b := &body{size: c.Size, r: r}
	if decode {
		b.digest = sha256.New()
	}
	if decode && c.Encoding == "gzip" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("decode content: %w", err), r.Close())
		}
		b.size = c.Length
		b.r = struct {
			io.Reader
			io.Closer
		}{z, r}
	}
	return b, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.r.Read(p)
	if b.digest != nil {
		b.digest.Write(p[:n])
	}
	b.n += int64(n)
	switch {
	case b.n > b.size, errors.Is(err, io.EOF) && b.n < b.size:
		err = fmt.Errorf("%w: %d bytes", errSize, b.size)
		b.err = err
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
	}
	if n > 0 && b.progress != nil {
		b.progress()
	}
	return n, err
}

// Close implements io.Closer. It may be called more than once.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.r.Close()
}

// whole reports whether all content was read.
func (b *body) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n == b.size
}

// failure returns why the content could not be read, or nil.
func (b *body) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		return nil
	}
	return fmt.Errorf("read content: %w", b.err)
}

// sum returns the SHA-256 of what was read, in hexadecimal, if it was decoded.
func (b *body) sum() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.digest == nil {
		return ""
	}
	return hex.EncodeToString(b.digest.Sum(nil))
}

// inline returns all of c, decoded, as a JSON string in base64, and its SHA-256.
func inline(c artifact.Content) (json.RawMessage, string, error) {
	b, err := open(c, true)
	if err != nil {
		return nil, "", err
	}
	defer b.Close()
	var all bytes.Buffer
	if _, err := all.ReadFrom(b); err != nil {
		return nil, "", fmt.Errorf("read content: %w", err)
	}
	data, err := json.Marshal(all.Bytes())
	return data, b.sum(), err
}
