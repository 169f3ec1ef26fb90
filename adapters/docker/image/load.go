package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"github.com/pierrec/lz4/v4"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// load brings an image from an archive, unless the daemon has it. Nothing is
// stored on the way.
func (s *Store) load(ctx context.Context, r fetch.Reference, content fetch.Content, log *tasklog.Log) error {
	tag := tagOf(content.Key)
	there, err := s.find(ctx, tag)
	if err != nil {
		return err
	}
	if there != "" {
		log.Infof("[docker] Found the image of %s, loaded before", r)
		return s.mark(ctx, tag, tag)
	}
	start := time.Now()
	log.Infof("[docker] Loading the image of %s", r)
	err = repeat(ctx, func(err error) bool {
		if _, ok := errors.AsType[*daemonError](err); !ok {
			return false
		}
		log.Warnf("[docker] Failed to load the image of %s, and will try again: %v", r, err)
		return true
	}, func() error { return s.loadOnce(ctx, r, content, tag, log) })
	if failed, ok := errors.AsType[*daemonError](err); ok {
		return fault.Unavailablef(failed, "image %s could not be loaded", r)
	}
	if err == nil {
		log.Infof("[docker] Loaded the image of %s in %s", r, seconds(start))
	}
	return err
}

// loadOnce brings an image from its source, and notes the hash of its archive.
func (s *Store) loadOnce(ctx context.Context, r fetch.Reference, content fetch.Content, tag string, log *tasklog.Log) error {
	source, size, err := content.Open(ctx)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer func() { _ = source.Close() }()
	hash := sha256.New()
	body := io.TeeReader(&counted{Reader: source, size: size, progress: newProgress(log, "Loaded")}, hash)
	archive, err := decompress(body)
	if err != nil {
		return badArchive(r, err)
	}
	defer archive.Close()
	// The archive ends before its source does, which tells at its own end
	// whether it was what it should be.
	if err := s.transfer(ctx, r, tag, io.MultiReader(archive, exhausting{body})); err != nil {
		return err
	}
	return s.mark(ctx, tag, hashTag(tag, hex.EncodeToString(hash.Sum(nil))))
}

// exhausting has no content, but ends as the rest of another reader does.
type exhausting struct{ io.Reader }

// Read implements io.Reader.
func (e exhausting) Read([]byte) (int, error) {
	if _, err := io.Copy(io.Discard, e.Reader); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// transfer streams an archive to the daemon, rewritten so that its image has the
// given tag and no other.
func (s *Store) transfer(ctx context.Context, r fetch.Reference, tag string, archive io.Reader) error {
	reading, writing := io.Pipe()
	rewritten := make(chan error, 1)
	go func() {
		err := rewrite(writing, archive, tag)
		_ = writing.CloseWithError(err) // never fails
		rewritten <- err
	}()
	answer, err := s.daemon.ImageLoad(ctx, reading, client.ImageLoadWithQuiet(true))
	if err == nil {
		err = errors.Join(loaded(answer), answer.Close())
	}
	_ = reading.Close() // lets rewrite end
	cause := <-rewritten
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case cause != nil && !errors.Is(cause, io.ErrClosedPipe):
		return badArchive(r, cause)
	case err != nil:
		if refusal, ok := errors.AsType[*loadError](err); ok {
			return fault.Malformedf("image %s cannot be loaded: %v", r, refusal)
		}
		return &daemonError{err}
	}
	return nil
}

// daemonError is what kept the daemon from loading an archive that may be good.
type daemonError struct{ err error }

// Error returns the cause.
func (e *daemonError) Error() string { return e.err.Error() }

// Unwrap returns it, too.
func (e *daemonError) Unwrap() error { return e.err }

// badArchive says that content is no image, unless it is its source that failed.
func badArchive(r fetch.Reference, err error) error {
	if f := fault.Classify(err); f != nil && f.Kind != fault.Internal || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Malformedf("%s is not an image as docker save writes it: %v", r, err)
}

// loadError is what the daemon finds wrong with an archive.
type loadError struct{ message string }

// Error returns the daemon's words.
func (e *loadError) Error() string { return e.message }

// loaded reads the daemon's answer to its end.
func loaded(answer io.Reader) error {
	for d := json.NewDecoder(answer); ; {
		var m jsonstream.Message
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read answer: %w", err)
		case m.Error != nil:
			return &loadError{m.Error.Message}
		}
	}
}

var errEmpty = errors.New("the archive holds no image")

// maxWindow bounds the memory that decompression takes.
const maxWindow = 128 << 20

// decompress returns the content of a stream that is compressed by gzip, zstd or
// lz4, or not at all, which its first bytes tell.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.Equal(magic, []byte{0x04, 0x22, 0x4d, 0x18}):
		return io.NopCloser(lz4.NewReader(b)), nil
	default:
		return io.NopCloser(b), nil
	}
}
