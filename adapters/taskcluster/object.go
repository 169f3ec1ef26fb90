package taskcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
)

// maxInline is how much content the object service takes in a request, in bytes.
const maxInline = 8 << 10

// object is permission to upload an object, as createArtifact grants it.
type object struct {
	Name        string          `json:"name"`
	ProjectID   string          `json:"projectId"`
	UploadID    string          `json:"uploadId"`
	Expires     json.RawMessage `json:"expires"` // must be repeated as it came
	Credentials credentials     `json:"credentials"`
}

// proposal is a proposed way to upload. client-go always proposes all ways.
type proposal struct {
	DataInline *inlineProposal `json:"dataInline,omitempty"`
	PutURL     *putProposal    `json:"putUrl,omitempty"`
}

type inlineProposal struct {
	ContentType string          `json:"contentType"`
	ObjectData  json.RawMessage `json:"objectData"`
}

type putProposal struct {
	ContentType   string `json:"contentType"`
	ContentLength int64  `json:"contentLength"`
}

// method is the way to upload that the object service chose, if any.
type method struct {
	DataInline bool `json:"dataInline"`
	PutURL     *struct {
		URL     string            `json:"url"`
		Expires time.Time         `json:"expires"`
		Headers map[string]string `json:"headers"`
	} `json:"putUrl"`
}

// uploadObject uploads content to the object service.
func (s *store) uploadObject(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if c.Encoding != "" && c.Encoding != "gzip" {
		return fmt.Errorf("upload artifact %q: cannot decode %q for the object service", m.Name, c.Encoding)
	}
	var o object
	length := c.Length
	create := creation{StorageType: string(Object), ContentType: m.ContentType, ContentLength: &length}
	if err := s.create(ctx, m, create, &o); err != nil {
		return err
	}
	sum, err := s.fill(ctx, m, c, o)
	if err != nil {
		return err
	}
	err = s.c.repeat(ctx, call{
		service: "object", name: "finishUpload", method: http.MethodPost,
		path: segments("/finish-upload/", o.Name), creds: task.Credentials(o.Credentials),
		in: struct {
			ProjectID string            `json:"projectId"`
			UploadID  string            `json:"uploadId"`
			Hashes    map[string]string `json:"hashes"`
		}{o.ProjectID, o.UploadID, map[string]string{"sha256": sum}},
	})
	if err != nil {
		return objectFault(ctx, m, err)
	}
	err = s.c.retry(ctx, "queue.finishArtifact", s.c.cfg.RetryFor, func() error {
		return s.c.do(ctx, call{
			service: "queue", name: "finishArtifact", method: http.MethodPut,
			path: s.path(m.Name), creds: s.claim.Credentials(),
			in: struct {
				UploadID string `json:"uploadId"`
			}{o.UploadID},
		})
	})
	return s.explained(ctx, m, err)
}

// fill gives o its content, and returns the SHA-256 of it.
func (s *store) fill(ctx context.Context, m artifact.Meta, c artifact.Content, o object) (sum string, err error) {
	propose := proposal{PutURL: &putProposal{m.ContentType, c.Length}}
	if c.Length <= maxInline {
		data, digest, err := inline(c)
		if err != nil {
			return "", err
		}
		propose.DataInline = &inlineProposal{m.ContentType, data}
		sum = digest
	}
	chosen, err := s.propose(ctx, m, o, propose)
	if err != nil || chosen.DataInline {
		return sum, err
	}
	propose.DataInline = nil
	renew := func(ctx context.Context) (string, http.Header, error) {
		if chosen.PutURL == nil || !time.Now().Before(chosen.PutURL.Expires) {
			var err error
			if chosen, err = s.propose(ctx, m, o, propose); err != nil {
				return "", nil, err
			}
		}
		if chosen.PutURL == nil {
			return "", nil, fault.Unavailablef(nil, "cannot upload artifact %q: the object service knows no way to", m.Name)
		}
		header := make(http.Header)
		for name, value := range chosen.PutURL.Headers {
			header.Set(name, value)
		}
		return chosen.PutURL.URL, header, nil
	}
	return s.transfer(ctx, m, c, true, renew, func() { chosen.PutURL = nil })
}

// propose has the object service choose a way to upload o.
func (s *store) propose(ctx context.Context, m artifact.Meta, o object, p proposal) (method, error) {
	var answer struct {
		UploadMethod method `json:"uploadMethod"`
	}
	err := s.c.repeat(ctx, call{
		service: "object", name: "createUpload", method: http.MethodPut,
		path: segments("/upload/", o.Name), creds: task.Credentials(o.Credentials),
		in: struct {
			ProjectID string          `json:"projectId"`
			UploadID  string          `json:"uploadId"`
			Expires   json.RawMessage `json:"expires"`
			Proposed  proposal        `json:"proposedUploadMethods"`
		}{o.ProjectID, o.UploadID, o.Expires, p},
		out: &answer,
	})
	return answer.UploadMethod, objectFault(ctx, m, err)
}

// objectFault classifies an error of the object service, whose refusals are
// nobody's fault but its own.
func objectFault(ctx context.Context, m artifact.Meta, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fault.Unavailablef(err, "cannot upload artifact %q to the object service", m.Name)
}
