package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// maxDetail is how long the message of an error artifact may be, in characters.
const maxDetail = 4096

// Artifacts opens the stores of runs.
type Artifacts struct{ c *Client }

var _ artifact.Opener = (*Artifacts)(nil)

// NewArtifacts returns the artifact stores of c's deployment.
func NewArtifacts(c *Client) *Artifacts { return &Artifacts{c} }

// Open implements artifact.Opener.
func (a *Artifacts) Open(c queue.Claim) artifact.Store { return &store{a.c, c} }

// store holds the artifacts of one run.
type store struct {
	c     *Client
	claim queue.Claim
}

// creation is the body of createArtifact, for all types of storage.
type creation struct {
	StorageType   string        `json:"storageType"`
	Expires       tcclient.Time `json:"expires"`
	ContentType   string        `json:"contentType,omitempty"`
	ContentLength *int64        `json:"contentLength,omitempty"` // once decoded
	URL           string        `json:"url,omitempty"`
	Artifact      string        `json:"artifact,omitempty"`
	Reason        string        `json:"reason,omitempty"`
	Message       *string       `json:"message,omitempty"`
}

// Upload implements artifact.Store. The object service cannot say how content
// is encoded, so what goes there is decoded on the way.
func (s *store) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if s.c.cfg.StorageType == Object {
		return s.uploadObject(ctx, m, c)
	}
	return s.uploadS3(ctx, m, c)
}

// Redirect implements artifact.Store.
func (s *store) Redirect(ctx context.Context, m artifact.Meta, url string) error {
	return s.create(ctx, m, creation{StorageType: "reference", ContentType: m.ContentType, URL: url}, nil)
}

// Link implements artifact.Store.
func (s *store) Link(ctx context.Context, m artifact.Meta, target string) error {
	return s.create(ctx, m, creation{StorageType: "link", ContentType: m.ContentType, Artifact: target}, nil)
}

// Explain implements artifact.Store.
func (s *store) Explain(ctx context.Context, m artifact.Meta, why artifact.Absence, detail string) error {
	detail = truncated(detail, maxDetail)
	body := creation{StorageType: "error", Reason: string(why), Message: &detail}
	err := s.create(ctx, m, body, nil)
	if e, ok := errors.AsType[*Error](err); ok && why == artifact.NotReadable && e.Code == "InputValidationError" {
		// Queues have known this reason only since version 45.
		body.Reason = string(artifact.InvalidResource)
		return s.create(ctx, m, body, nil)
	}
	return err
}

// create calls createArtifact until it succeeds, or fails for good.
func (s *store) create(ctx context.Context, m artifact.Meta, body creation, answer any) error {
	uncertain := false
	err := s.c.retry(ctx, "queue.createArtifact", s.c.cfg.RetryFor, func() error {
		err := s.createOnce(ctx, m, body, answer)
		uncertain = uncertain || transient(err)
		return err
	})
	if body.StorageType == string(Object) && conflict(err) {
		// The artifact exists because an attempt whose answer was lost made
		// it, or a process that was killed, and the permission to upload was in
		// that answer.
		if uncertain {
			return fault.Unavailablef(err, "cannot upload artifact %q: the queue's answer was lost", m.Name)
		}
		if cl, ok := s.claim.(*claim); ok && cl.resumed {
			return &fault.Error{
				Kind: fault.Shutdown, Err: err,
				Message: fmt.Sprintf("cannot upload artifact %q again: the worker was started again while it was uploaded", m.Name),
			}
		}
	}
	return s.explained(ctx, m, err)
}

// createOnce makes one attempt of createArtifact.
func (s *store) createOnce(ctx context.Context, m artifact.Meta, body creation, answer any) error {
	body.Expires = tcclient.Time(m.Expires)
	if s.c.noContentLength.Load() {
		body.ContentLength = nil
	}
	err := s.c.do(ctx, call{
		service: "queue", name: "createArtifact", method: http.MethodPost,
		path: s.path(m.Name), creds: s.claim.Credentials(), in: body, out: answer,
	})
	if body.ContentLength != nil && refusesProperty(err, "contentLength") {
		s.c.noContentLength.Store(true)
		return s.createOnce(ctx, m, body, answer)
	}
	return err
}

func (s *store) path(name string) string {
	return runPath(s.claim.Run(), segments("/artifacts/", name))
}

// explained turns an error of creating or finishing an artifact into the one
// that the port promises.
func (s *store) explained(ctx context.Context, m artifact.Meta, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if transient(err) {
		return fault.Unavailablef(err, "cannot create artifact %q: the queue is out of reach", m.Name)
	}
	if conflict(err) {
		// A conflict of artifacts and one of runs differ in words only, so
		// that what the words do not tell is left to the state of the run.
		exists := strings.Contains(err.Error(), "already exists")
		if exists || s.claim.Check(ctx) == nil {
			return malformed(m, err)
		}
	}
	err = lost(err, s.claim.TakenUntil())
	switch st := status(err); {
	case errors.Is(err, queue.ErrClaimLost):
		return err
	case refusesCredentials(err):
		return fault.Unavailablef(err, "cannot create artifact %q: the queue refuses the run's credentials", m.Name)
	case st >= 400:
		return malformed(m, err)
	default:
		return err
	}
}

// malformed blames the task for what the queue said.
func malformed(m artifact.Meta, err error) error {
	message := err.Error()
	if e, ok := errors.AsType[*Error](err); ok && e.Message != "" {
		message = e.Message
	}
	return &fault.Error{
		Kind:    fault.Malformed,
		Message: fmt.Sprintf("the queue refuses artifact %q: %s", m.Name, message),
		Err:     err,
	}
}

func conflict(err error) bool { return status(err) == http.StatusConflict }

// refusesProperty reports whether err is a service's that does not know a
// property of the request.
func refusesProperty(err error, name string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusBadRequest && strings.Contains(e.Message, name)
}

// truncated returns s, cut after limit characters.
func truncated(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}
