package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
)

// maxRefusals is how often a bucket may refuse an upload for what looks like
// the request's fault. The first refusals may be for a URL that has expired.
const maxRefusals = 3

// uploadS3 uploads content to the bucket that the queue names.
func (s *store) uploadS3(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	var target struct {
		PutURL      string    `json:"putUrl"`
		ContentType string    `json:"contentType"`
		Expires     time.Time `json:"expires"`
	}
	renew := func(ctx context.Context) (string, http.Header, error) {
		if target.PutURL == "" || !time.Now().Before(target.Expires) {
			length := c.Length
			err := s.create(ctx, m, creation{StorageType: string(S3), ContentType: m.ContentType, ContentLength: &length}, &target)
			if err != nil {
				return "", nil, err
			}
		}
		header := http.Header{"Content-Type": {target.ContentType}}
		if c.Encoding != "" {
			header.Set("Content-Encoding", c.Encoding)
		}
		return target.PutURL, header, nil
	}
	_, err := s.transfer(ctx, m, c, false, renew, func() { target.PutURL = "" })
	return err
}

// transfer uploads content to the URL that renew returns, which it asks for
// before each attempt, and returns the SHA-256 of what it sent. It calls expire
// when the URL may have expired.
func (s *store) transfer(
	ctx context.Context, m artifact.Meta, c artifact.Content, decode bool,
	renew func(context.Context) (string, http.Header, error), expire func(),
) (sum string, err error) {
	refusals := 0
	var final error // of what is not to be tried again, whatever it is
	err = s.c.retry(ctx, "upload", s.c.cfg.RetryFor, func() error {
		var url string
		var header http.Header
		if url, header, final = renew(ctx); final != nil {
			return nil
		}
		var b *body
		if b, final = open(c, decode); final != nil {
			return nil
		}
		defer b.Close()
		err := s.c.put(ctx, url, header, b)
		sum = b.sum()
		if refusal, ok := errors.AsType[*transferError](err); ok && refusal.final() {
			expire()
			if refusals++; refusals >= maxRefusals {
				final = fault.Unavailablef(err, "cannot upload artifact %q: the bucket refuses it", m.Name)
				return nil
			}
		}
		return err
	})
	switch {
	case final != nil:
		return "", final
	case err == nil:
		return sum, nil
	case ctx.Err() != nil || !transient(err):
		return "", fmt.Errorf("upload artifact %q: %w", m.Name, err)
	default:
		return "", fault.Unavailablef(err, "cannot upload artifact %q", m.Name)
	}
}
