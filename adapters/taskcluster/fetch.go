package taskcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/download"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

// Fetch is a [fetch.Source] of artifacts, named by their task or by the index.
type Fetch struct {
	c    *Client
	http *http.Client
}

var _ fetch.Source = (*Fetch)(nil)

// NewFetch returns the artifacts of c's deployment.
func NewFetch(c *Client) *Fetch {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = time.Minute
	transport.DisableKeepAlives = true // contents are few and long
	return &Fetch{c: c, http: &http.Client{Transport: transport}}
}

// Resolve implements fetch.Source.
func (f *Fetch) Resolve(ctx context.Context, r fetch.Reference, credentials func() task.Credentials) (fetch.Content, error) {
	if r.TaskID == "" && r.Namespace == "" {
		return fetch.Content{}, fmt.Errorf("taskcluster: fetch %s: %w", r, errors.ErrUnsupported)
	}
	id := r.TaskID
	if r.Namespace != "" {
		found, err := NewIndex(f.c).FindTask(ctx, credentials(), r.Namespace)
		if err != nil {
			return fetch.Content{}, fetchFault(err, r, "the index has no task under "+r.Namespace)
		}
		id = found
	}
	run, err := f.lastRun(ctx, id, credentials())
	if err != nil {
		return fetch.Content{}, fetchFault(err, r, "there is no task "+string(id))
	}
	// Asking for it is what shows that the task may read it.
	a := &remoteArtifact{f: f, ref: r, run: task.RunID{Task: id, Run: run}, credentials: credentials}
	if _, err := a.url(ctx); err != nil {
		return fetch.Content{}, err
	}
	return fetch.Content{
		Key:    "artifact:" + a.run.String() + "/" + r.Artifact,
		TaskID: id,
		Name:   path.Base(r.Artifact),
		Open:   a.open,
	}, nil
}

// lastRun returns the number of a task's last run.
func (f *Fetch) lastRun(ctx context.Context, id task.ID, creds task.Credentials) (int, error) {
	var answer struct {
		Status struct {
			Runs []struct{} `json:"runs"`
		} `json:"status"`
	}
	err := f.c.repeat(ctx, call{
		service: "queue", name: "status", method: http.MethodGet,
		path: segments("/task/", string(id), "/status"), creds: creds, out: &answer,
	})
	if err == nil && len(answer.Status.Runs) == 0 {
		return 0, fault.Malformedf("task %s has not run yet, so that it has no artifacts", id)
	}
	return len(answer.Status.Runs) - 1, err
}

// remoteArtifact is an artifact of another run.
type remoteArtifact struct {
	f           *Fetch
	ref         fetch.Reference
	run         task.RunID
	credentials func() task.Credentials
}

// location is where the queue, or the object service, says that content is.
type location struct {
	StorageType string `json:"storageType"`
	URL         string `json:"url"`
	Reason      string `json:"reason"`
	Message     string `json:"message"`
	Name        string `json:"name"` // of an object
	Credentials struct {
		ClientID    string `json:"clientId"`
		AccessToken string `json:"accessToken"`
		Certificate string `json:"certificate"`
	} `json:"credentials"`
}

// url returns where the content is, for a while.
func (a *remoteArtifact) url(ctx context.Context) (string, error) {
	var l location
	err := a.f.c.repeat(ctx, call{
		service: "queue", name: "artifact", method: http.MethodGet,
		path:  segments("/task/", string(a.run.Task), "/runs/", strconv.Itoa(a.run.Run), "/artifact-content/", a.ref.Artifact),
		creds: a.credentials(), out: &l,
	})
	if err != nil {
		return "", fetchFault(err, a.ref, fmt.Sprintf("run %s has no artifact %s", a.run, a.ref.Artifact))
	}
	switch {
	case l.StorageType == "error":
		return "", fault.Malformedf("%s cannot be fetched: %s: %s", a.ref, l.Reason, l.Message)
	case l.StorageType == "object":
		return a.object(ctx, l)
	case l.URL == "":
		return "", fmt.Errorf("fetch %s: storage type %q is not known", a.ref, l.StorageType)
	}
	return l.URL, nil
}

// object returns where an object can be downloaded.
func (a *remoteArtifact) object(ctx context.Context, l location) (string, error) {
	var answer struct {
		URL string `json:"url"`
	}
	err := a.f.c.repeat(ctx, call{
		service: "object", name: "startDownload", method: http.MethodPut,
		path:  segments("/start-download/", l.Name),
		creds: task.Credentials{ClientID: l.Credentials.ClientID, AccessToken: l.Credentials.AccessToken, Certificate: l.Credentials.Certificate},
		in:    map[string]any{"acceptDownloadMethods": map[string]bool{"simple": true}}, out: &answer,
	})
	if err != nil {
		return "", fetchFault(err, a.ref, "there is no object "+l.Name)
	}
	return answer.URL, nil
}

// open implements fetch.Content.Open.
func (a *remoteArtifact) open(ctx context.Context) (io.ReadCloser, int64, error) {
	r, size, err := download.Content{Client: a.f.http, URL: a.url, SHA256: a.ref.SHA256}.Open(ctx)
	if err != nil {
		return nil, 0, transferFault(err, a.ref)
	}
	return &faultyReader{r, a.ref}, size, nil
}

// faultyReader turns errors of a download into faults.
type faultyReader struct {
	io.ReadCloser
	ref fetch.Reference
}

// Read implements io.Reader.
func (r *faultyReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = transferFault(err, r.ref)
	}
	return n, err
}

// fetchFault says what it means that a service does not give what was asked for.
func fetchFault(err error, r fetch.Reference, missing string) error {
	if f := fault.Classify(err); f != nil && f.Kind != fault.Internal || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, ErrNotFound) {
		return fault.Malformedf("%s cannot be fetched: %s", r, missing)
	}
	switch status(err) {
	case http.StatusNotFound, http.StatusBadRequest:
		return fault.Malformedf("%s cannot be fetched: %s", r, missing)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Malformedf("%s cannot be fetched: the task may not read it; does it have the scope queue:get-artifact:%s?", r, r.Artifact)
	default:
		return fault.Unavailablef(err, "%s cannot be fetched: Taskcluster does not answer", r)
	}
}

// transferFault says what it means that content does not come.
func transferFault(err error, r fetch.Reference) error {
	if f := fault.Classify(err); f != nil && f.Kind != fault.Internal || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, download.ErrHash) {
		return fault.Failuref(err, "%s is not what it should be: %v", r, err)
	}
	if s, ok := errors.AsType[*download.StatusError](err); ok && !s.Temporary() {
		return fault.Malformedf("%s cannot be fetched: the server says %v", r, s)
	}
	return fault.Unavailablef(err, "%s cannot be fetched: the transfer has failed again and again", r)
}
