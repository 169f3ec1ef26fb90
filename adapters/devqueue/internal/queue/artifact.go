package queue

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

const (
	// salvage is how long after an exception artifacts are still taken, so that
	// a worker can report first and upload its logs afterwards.
	salvage = 25 * time.Minute
	// putLife is how long an artifact can be PUT after it was created.
	putLife = 45 * time.Minute
	// credentialLife bounds credentials to upload an object.
	credentialLife = 24 * time.Hour
)

// artifact is an artifact of one run.
type artifact struct {
	StorageType string   `json:"storageType"`
	ContentType string   `json:"contentType"`
	Expires     api.Time `json:"expires"`
	Present     bool     `json:"present"` // false while an object is being uploaded
	Details     details  `json:"details"`
}

// details are what only some types of storage have.
type details struct {
	URL      string `json:"url,omitempty"`      // of a reference
	Artifact string `json:"artifact,omitempty"` // that a link leads to
	Reason   string `json:"reason,omitempty"`   // of an error
	Message  string `json:"message,omitempty"`  // of an error
	UploadID string `json:"uploadId,omitempty"` // of an object that is not present
}

// artifactView is an artifact as the queue lists it.
type artifactView struct {
	StorageType string   `json:"storageType"`
	Name        string   `json:"name"`
	Expires     api.Time `json:"expires"`
	ContentType string   `json:"contentType"`
}

func (a artifact) view(name string) artifactView {
	return artifactView{a.StorageType, name, a.Expires, a.ContentType}
}

// runKey begins the keys of the artifacts of a run.
func runKey(taskID string, run int) string { return fmt.Sprintf("%s/%04d/", taskID, run) }

// contentKey and objectName say where the content of an artifact is.
func contentKey(taskID string, run int, name string) string {
	return "s3/" + taskID + "/" + strconv.Itoa(run) + "/" + name
}

func objectName(taskID string, run int, name string) string {
	return "t/" + taskID + "/" + strconv.Itoa(run) + "/" + name
}

// supersedes returns nil if a may take the place of old.
func (a artifact) supersedes(old artifact) error {
	// A link may take the place of a reference, whose content type stays.
	sameType := a.ContentType == old.ContentType || a.StorageType == "link"
	sameStorage := a.StorageType == old.StorageType && (a.Details == old.Details || a.StorageType == "reference")
	if sameType && !a.Expires.Before(old.Expires.Time) && (sameStorage || old.StorageType == "reference" && a.StorageType == "link") {
		return nil
	}
	return api.Conflict("Artifact already exists with different properties, and none of the allowed exceptions apply: "+
		"storageType %s, contentType %s, expires %s", old.StorageType, old.ContentType, api.Date(old.Expires.Time))
}

// takes returns nil if artifacts of the run are taken now.
func (t *entry) takes(run int, now time.Time) error {
	r := t.status.Runs[run]
	if r.State == lifecycle.Running || r.State == lifecycle.Exception && r.Resolved.After(now.Add(-salvage)) {
		return nil
	}
	return api.Conflict("Artifacts cannot be created for a task after it is resolved, unless it is resolved 'exception', "+
		"and even in this case only up to 25 min past resolution. This to ensure that artifacts have been uploaded before "+
		"a task is 'completed' and output is consumed by a dependent task\n\nTask status: run %d is %s", run, r.State)
}

func (q *Queue) createArtifact(_ context.Context, c *api.Call) (any, error) {
	run, err := c.Run()
	if err != nil {
		return nil, err
	}
	var input struct {
		artifact
		details
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	a := input.artifact
	a.Details = input.details
	a.Present = a.StorageType != "object"
	if a.ContentType == "" {
		a.ContentType = "application/binary"
	}
	now := api.Now().Time
	if a.Expires.Before(now.Add(-clockDrift)) {
		return nil, api.InputError("Expires must be in the future")
	}
	var t *entry
	taskID, name := c.Params["taskId"], c.Params["name"]
	err = q.DB.Update(func(tx *store.Tx) error {
		_, known, err := definitions.Get(tx, taskID)
		if err != nil || !known {
			return orInputError(err, "Task not found")
		}
		if t, err = load(tx, taskID); err != nil {
			return err
		}
		switch {
		case run >= len(t.status.Runs):
			return api.InputError("Run not found")
		case t.status.Runs[run].WorkerID == "":
			return api.InputError("Run was not claimed by a worker and so no artifacts can exist")
		case a.Expires.After(t.definition.Expires.Time):
			return api.InputError("Artifact expires (%s) after the task expiration %s (task.expires < expires) - this is not allowed, "+
				"artifacts may not expire after the task they belong to expires", api.Date(a.Expires.Time), api.Date(t.definition.Expires.Time))
		}
		if err := t.takes(run, now); err != nil {
			return err
		}
		return q.keep(tx, t, run, name, &a)
	})
	if err != nil {
		return nil, err
	}
	return q.upload(t, run, name, a)
}

// orInputError returns err, or an api.InputError if it is nil.
func orInputError(err error, message string) error {
	if err != nil {
		return err
	}
	return api.InputError("%s", message)
}

// keep stores an artifact in place of any that it may supersede.
func (q *Queue) keep(tx *store.Tx, t *entry, run int, name string, a *artifact) error {
	key := runKey(t.id, run) + name
	old, known, err := artifacts.Get(tx, key)
	if err != nil {
		return err
	}
	if a.StorageType == "object" {
		expires := a.Expires
		if known && old.StorageType == "object" && !old.Present {
			// The same upload goes on.
			a.Details.UploadID, expires = old.Details.UploadID, old.Expires
		} else if a.Details.UploadID, err = slugid(); err != nil {
			return err
		}
		if !known {
			err = q.Objects.Create(tx, objectName(t.id, run, name), t.definition.ProjectID, a.Details.UploadID, expires, nil)
			if err != nil {
				return err
			}
		}
	}
	if known {
		if err := a.supersedes(old); err != nil {
			return err
		}
		if a.ContentType = old.ContentType; a.StorageType == "object" {
			a.Present = old.Present
		}
	}
	return artifacts.Put(tx, key, *a)
}

// upload answers with all that is needed to upload an artifact.
func (q *Queue) upload(t *entry, run int, name string, a artifact) (any, error) {
	now := time.Now()
	switch a.StorageType {
	case "s3":
		until := now.Add(putLife)
		return map[string]any{
			"storageType": "s3", "contentType": a.ContentType, "expires": api.Date(until),
			"putUrl": q.Contents.PutURL(contentKey(t.id, run, name), a.ContentType, -1, until),
		}, nil
	case "object":
		r := t.status.Runs[run]
		object := objectName(t.id, run, name)
		expiry := now.Add(credentialLife)
		if a.Expires.Before(expiry) {
			expiry = a.Expires.Time
		}
		client := fmt.Sprintf("artifact-upload/%s/%d/on/%s/%s", t.id, run, r.WorkerGroup, r.WorkerID)
		credentials, err := q.Authority.Issue(client, now, expiry, "object:upload:"+t.definition.ProjectID+":"+object)
		if err != nil {
			return nil, err
		}
		return map[string]any{
			"storageType": "object", "name": object, "projectId": t.definition.ProjectID, "uploadId": a.Details.UploadID,
			"expires": a.Expires, "credentials": api.View(credentials),
		}, nil
	}
	return map[string]any{"storageType": a.StorageType}, nil
}

func (q *Queue) finishArtifact(_ context.Context, c *api.Call) (any, error) {
	run, err := c.Run()
	if err != nil {
		return nil, err
	}
	var input struct {
		UploadID string `json:"uploadId"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	taskID, name := c.Params["taskId"], c.Params["name"]
	key := runKey(taskID, run) + name
	return api.NoContent(), q.DB.Update(func(tx *store.Tx) error {
		a, known, err := artifacts.Get(tx, key)
		switch {
		case err != nil:
			return err
		case !known:
			return api.NotFound("Artifact with taskId `%s`, runId %d, name `%s` not found", taskID, run, name)
		case a.StorageType != "object":
			return api.InputError("Only object artifacts can be finished")
		case a.Present:
			return nil
		case a.Details.UploadID != input.UploadID:
			return api.InputError("given uploadId does not match that for the artifact")
		}
		if err := q.Objects.Ready(tx, objectName(taskID, run, name)); err != nil {
			return api.InputError("Object storing artifact data does not exist")
		}
		a.Present, a.Details = true, details{}
		return artifacts.Put(tx, key, a)
	})
}

// slugid returns a random identifier: a version 4 UUID in URL-safe base64 that
// begins with a letter or a digit.
func slugid() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("make an identifier: %w", err)
	}
	id[0] &= 0x7f
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return strings.TrimRight(base64.URLEncoding.EncodeToString(id[:]), "="), nil
}
