package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Artifact is an artifact as the queue lists it.
type Artifact struct {
	Name        string `json:"name"`
	StorageType string `json:"storageType"`
	ContentType string `json:"contentType"`
}

// Content is what an artifact holds, as it is stored.
type Content struct {
	Body     io.ReadCloser
	Encoding string // as in the HTTP header; empty for none
}

// Artifacts returns the artifacts of a run.
func (c *Client) Artifacts(ctx context.Context, id task.RunID) ([]Artifact, error) {
	var all []Artifact
	for query := (url.Values{}); ; {
		var page struct {
			Artifacts []Artifact `json:"artifacts"`
			Next      string     `json:"continuationToken"`
		}
		if err := c.call(ctx, http.MethodGet, artifactsPath(id)+"?"+query.Encode(), nil, &page); err != nil {
			return nil, fmt.Errorf("list artifacts: %w", err)
		}
		all = append(all, page.Artifacts...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("continuationToken", page.Next)
	}
}

func artifactsPath(id task.RunID) string {
	return "/task/" + string(id.Task) + "/runs/" + strconv.Itoa(id.Run) + "/artifacts"
}

// Open returns the content of an artifact, at the end of all links. It returns
// nil where there is none in the deployment: the artifact is an error, or leads
// to somewhere else.
func (c *Client) Open(ctx context.Context, id task.RunID, name string) (*Content, error) {
	at, err := c.locate(ctx, id, name)
	if err != nil || !strings.HasPrefix(at, c.rootURL+"/") {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("fetch artifact %s: %w", name, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch artifact %s: %w", name, withoutURL(err))
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // there is nothing more to learn
		return nil, fmt.Errorf("fetch artifact %s: %s", name, resp.Status)
	}
	return &Content{Body: resp.Body, Encoding: resp.Header.Get("Content-Encoding")}, nil
}

// locate returns the URL of an artifact's content, or "" if it has none.
func (c *Client) locate(ctx context.Context, id task.RunID, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, artifactsPath(id)+"/"+url.PathEscape(name), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusSeeOther:
		return resp.Header.Get("Location"), nil
	case http.StatusFailedDependency: // an error in place of the artifact
		return "", nil
	default:
		return "", fmt.Errorf("find artifact %s: %s", name, resp.Status)
	}
}
