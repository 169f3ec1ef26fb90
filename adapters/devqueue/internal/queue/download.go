package queue

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// getLife is how long the URL of an artifact's content is good for.
const getLife = 30 * time.Minute

// found is an artifact and where it is.
type found struct {
	artifact
	taskID string
	run    int
	name   string
}

// run returns the run that a call is about: the one it names, or the latest.
func (q *Queue) run(tx *store.Tx, c *api.Call) (int, error) {
	if _, ok := c.Params["runId"]; ok {
		return c.Run()
	}
	t, err := load(tx, c.Params["taskId"])
	if err != nil {
		return 0, err
	}
	if t.status.Last() < 0 {
		return 0, api.NotFound("Task doesn't have any runs")
	}
	return t.status.Last(), nil
}

// present returns an artifact that is complete, or an api.NotFound.
func present(tx *store.Tx, taskID string, run int, name string) (artifact, error) {
	a, known, err := artifacts.Get(tx, runKey(taskID, run)+name)
	if err != nil || !known || !a.Present || a.Expires.Before(time.Now()) {
		return a, orNotFound(err, "Artifact not found")
	}
	return a, nil
}

// follow returns the artifact that a call is about, at the end of all links.
// The caller needs the scopes for each artifact on the way.
func (q *Queue) follow(c *api.Call) (f found, err error) {
	f.taskID, f.name = c.Params["taskId"], c.Params["name"]
	names := []string{f.name}
	if err := c.Authorize(api.Params{"names": names}); err != nil {
		return f, err
	}
	err = q.DB.View(func(tx *store.Tx) error {
		if f.run, err = q.run(tx, c); err != nil {
			return err
		}
		for {
			if f.artifact, err = present(tx, f.taskID, f.run, f.name); err != nil || f.StorageType != "link" {
				return err
			}
			f.name = f.Details.Artifact
			if slices.Contains(names, f.name) {
				return api.InputError("Artifact leads to a link cycle")
			}
			names = append(names, f.name)
			if err := c.Authorize(api.Params{"names": names}); err != nil {
				return err
			}
		}
	})
	return f, err
}

// url returns where the content of an artifact is.
func (q *Queue) url(f found) string {
	switch f.StorageType {
	case "s3":
		return q.Contents.GetURL(contentKey(f.taskID, f.run, f.name), time.Now().Add(getLife))
	case "object":
		return q.Objects.URL(objectName(f.taskID, f.run, f.name))
	}
	return f.Details.URL
}

// getArtifact redirects to the content of an artifact.
func (q *Queue) getArtifact(_ context.Context, c *api.Call) (any, error) {
	f, err := q.follow(c)
	if err != nil {
		return nil, err
	}
	header := map[string]string{"x-taskcluster-artifact-storage-type": f.StorageType}
	if f.StorageType == "error" {
		return api.Reply{
			Status: http.StatusFailedDependency, Header: header,
			Body: map[string]string{"reason": f.Details.Reason, "message": f.Details.Message},
		}, nil
	}
	header["Location"] = q.url(f)
	return api.Reply{
		Status: http.StatusSeeOther, Header: header,
		Body: map[string]string{"storageType": f.StorageType, "url": header["Location"]},
	}, nil
}

// artifactContent describes how to get at the content of an artifact.
func (q *Queue) artifactContent(_ context.Context, c *api.Call) (any, error) {
	f, err := q.follow(c)
	if err != nil {
		return nil, err
	}
	switch f.StorageType {
	case "error":
		return map[string]string{"storageType": "error", "reason": f.Details.Reason, "message": f.Details.Message}, nil
	case "object":
		name := objectName(f.taskID, f.run, f.name)
		client := "artifact-download/" + f.taskID + "/" + strconv.Itoa(f.run) + "/" + f.name
		now := time.Now()
		credentials, err := q.Authority.Issue(client, now, now.Add(time.Hour), "object:download:"+name)
		if err != nil {
			return nil, err
		}
		return map[string]any{"storageType": "object", "name": name, "credentials": api.View(credentials)}, nil
	}
	return map[string]string{"storageType": f.StorageType, "url": q.url(f)}, nil
}

func (q *Queue) artifactInfo(_ context.Context, c *api.Call) (any, error) {
	var a artifact
	err := q.DB.View(func(tx *store.Tx) error {
		run, err := q.run(tx, c)
		if err != nil {
			return err
		}
		a, err = present(tx, c.Params["taskId"], run, c.Params["name"])
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.view(c.Params["name"]), nil
}

func (q *Queue) listArtifacts(_ context.Context, c *api.Call) (any, error) {
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	taskID := c.Params["taskId"]
	var prefix string
	var page store.Page[artifact]
	err = q.DB.View(func(tx *store.Tx) error {
		t, err := load(tx, taskID)
		if err != nil {
			return err
		}
		run, err := q.run(tx, c)
		if err != nil {
			return err
		}
		if run > t.status.Last() {
			return api.NotFound("Task with taskId: `%s` has no run with runId: %d", taskID, run)
		}
		prefix = runKey(taskID, run)
		page, err = artifacts.Page(tx, prefix, after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.Listing("artifacts", page, func(key string, a artifact) artifactView { return a.view(key[len(prefix):]) }), nil
}
