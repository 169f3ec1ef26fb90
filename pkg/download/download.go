// Package download reads content over HTTP that is too long to begin again: what
// breaks off goes on where it was, what is compressed for transport is
// decompressed, and what was promised by a hash is held to it.
package download

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrHash is returned at the end of content that has another hash.
var ErrHash = errors.New("content differs from its hash")

// StatusError is the answer of a server that does not have the content, or does
// not give it.
type StatusError struct{ Code int }

// Error returns the status.
func (e *StatusError) Error() string { return strconv.Itoa(e.Code) + " " + http.StatusText(e.Code) }

// Temporary reports whether the server may change its mind.
func (e *StatusError) Temporary() bool {
	return e.Code >= 500 || e.Code == http.StatusTooManyRequests || e.Code == http.StatusRequestTimeout
}

// Content is what is to be downloaded.
type Content struct {
	Client *http.Client

	// URL is called for each attempt, since signed URLs expire. Its errors end
	// the download.
	URL func(context.Context) (string, error)

	SHA256 string // hexadecimal, of the decompressed content; empty for any

	// Final reports whether no further attempt can mend an error of the
	// connection; nil if any may.
	Final func(error) bool

	Attempts int           // in a row without progress; 5 if zero
	Pause    time.Duration // before the second attempt, and doubled from then on; 200 ms if zero
}

// Open begins to download. The size is in bytes, -1 if it is not known. The
// reader is not safe for concurrent use; ctx ends it.
//
// Errors, of Read too: *StatusError; ErrHash; those of Content.URL; that of ctx;
// those of the connection, after all attempts.
func (c Content) Open(ctx context.Context) (io.ReadCloser, int64, error) {
	if c.Attempts == 0 {
		c.Attempts = 5
	}
	if c.Pause == 0 {
		c.Pause = 200 * time.Millisecond
	}
	raw := &rawReader{content: c, ctx: ctx}
	if err := raw.connect(); err != nil {
		return nil, 0, err
	}
	r := &reader{Reader: raw, raw: raw, want: strings.ToLower(c.SHA256)}
	size := raw.size
	if raw.gzipped {
		decompressed, err := gzip.NewReader(raw)
		if err != nil {
			return nil, 0, errors.Join(fmt.Errorf("decompress: %w", err), raw.close())
		}
		r.Reader, size = decompressed, -1
	}
	if r.want != "" {
		r.hash = sha256.New()
	}
	return r, size, nil
}

// reader is decompressed content.
type reader struct {
	io.Reader
	raw  *rawReader
	want string
	hash hash.Hash // nil if any will do
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.hash != nil {
		_, _ = r.hash.Write(p[:n]) // never fails
		if errors.Is(err, io.EOF) {
			if got := hex.EncodeToString(r.hash.Sum(nil)); got != r.want {
				return n, fmt.Errorf("%w: SHA256 is %s, not %s", ErrHash, got, r.want)
			}
		}
	}
	return n, err
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.raw.close() }

// rawReader is content as it is transferred, over any number of connections.
type rawReader struct {
	content Content
	ctx     context.Context //nolint:containedctx // it is that of the download, which Read belongs to

	body    io.ReadCloser
	offset  int64
	size    int64 // -1 if it is not known
	tag     string
	gzipped bool
	failed  int // attempts in a row without progress
}

// Read implements io.Reader.
func (r *rawReader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.offset += int64(n)
		if n > 0 {
			r.failed = 0
		}
		ended := errors.Is(err, io.EOF)
		if err == nil || ended && (r.size < 0 || r.offset >= r.size) {
			return n, err
		}
		if n > 0 {
			return n, nil // the next call meets the error again
		}
		if ended {
			err = io.ErrUnexpectedEOF
		}
		if err := r.reconnect(err); err != nil {
			return 0, err
		}
	}
}

func (r *rawReader) close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// connect makes the first connection.
func (r *rawReader) connect() error {
	for {
		err := r.request()
		if err == nil {
			return nil
		}
		if err := r.wait(err); err != nil {
			return err
		}
	}
}

// reconnect goes on where the content broke off.
func (r *rawReader) reconnect(cause error) error {
	_ = r.close() // it is broken
	for {
		if err := r.wait(cause); err != nil {
			return err
		}
		if cause = r.request(); cause == nil {
			return nil
		}
	}
}

// wait waits for the time of the next attempt, if there is to be one.
func (r *rawReader) wait(cause error) error {
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if _, final := errors.AsType[*finalError](cause); final {
		return errors.Unwrap(cause)
	}
	if s, ok := errors.AsType[*StatusError](cause); ok && !s.Temporary() {
		return cause
	}
	if r.content.Final != nil && r.content.Final(cause) {
		return cause
	}
	if r.failed++; r.failed >= r.content.Attempts {
		return fmt.Errorf("%w (%d attempts)", cause, r.failed)
	}
	timer := time.NewTimer(min(r.content.Pause<<(r.failed-1), 20*time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// finalError is one that no further attempt can mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// errChanged says that the rest would not fit to what was read.
var errChanged = errors.New("the content has changed while it was downloaded")

// request asks for the content from the offset on.
func (r *rawReader) request() error {
	url, err := r.content.URL(r.ctx)
	if err != nil {
		return &finalError{err}
	}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return &finalError{errors.New("the URL cannot be used")}
	}
	req.Header.Set("Accept-Encoding", "gzip")
	if r.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.offset))
		if r.tag != "" {
			req.Header.Set("If-Range", r.tag)
		}
	}
	resp, err := r.content.Client.Do(req)
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusPartialContent && r.offset > 0:
		r.body = resp.Body
		return nil
	case resp.StatusCode != http.StatusOK:
		_ = resp.Body.Close() // there is nothing in it to read
		return &StatusError{resp.StatusCode}
	case r.offset == 0:
		r.body, r.size, r.tag = resp.Body, resp.ContentLength, resp.Header.Get("ETag")
		r.gzipped = resp.Header.Get("Content-Encoding") == "gzip"
		return nil
	}
	// The server knows no ranges, or another content: what was read must be
	// what it sends again.
	if tag := resp.Header.Get("ETag"); tag != r.tag || r.size != resp.ContentLength {
		_ = resp.Body.Close()
		return &finalError{errChanged}
	}
	if _, err := io.CopyN(io.Discard, resp.Body, r.offset); err != nil {
		_ = resp.Body.Close()
		return err
	}
	r.body = resp.Body
	return nil
}
