package taskcluster

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcauth"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/artifact/artifacttest"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
	"github.com/taskcluster/taskcluster-worker/ports/auth/authtest"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lease is how long claims last where a test waits for one to expire.
const lease = 2 * time.Second

func TestQueue(t *testing.T) {
	queuetest.Test(t, func(tb testing.TB) queuetest.Harness {
		tb.Helper()
		return newDeployment(tb, S3)
	})
}

func TestArtifacts(t *testing.T) {
	for _, storage := range []StorageType{S3, Object} {
		t.Run(string(storage), func(t *testing.T) {
			artifacttest.Test(t, func(tb testing.TB) artifacttest.Harness {
				tb.Helper()
				return newDeployment(tb, storage)
			})
		})
	}
}

func TestAuth(t *testing.T) {
	authtest.Test(t, func(tb testing.TB) authtest.Harness {
		tb.Helper()
		return newDeployment(tb, S3)
	})
}

// deployment is a devqueue with a worker's connection to it, and what happens
// behind the worker's back, which is done with Taskcluster's own client.
type deployment struct {
	client *Client
	queue  *tcqueue.Queue
	auth   *tcauth.Auth
	breaks atomic.Int64 // transfers of content that are to break
}

func newDeployment(tb testing.TB, storage StorageType) *deployment {
	tb.Helper()
	server, shut, err := devqueue.Open(tb.Context(), devqueue.Config{
		Dir: tb.TempDir(), ClaimTimeout: lease, PollTimeout: 200 * time.Millisecond,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(shut)
	d := new(deployment)
	d.client = connect(tb, Config{
		RootURL: server.RootURL(), Credentials: server.Credentials(),
		TaskQueueID: "test/queue", WorkerGroup: "group", WorkerID: "worker", StorageType: storage,
	})
	d.client.http.Transport = &breaking{d.client.http.Transport, &d.breaks}
	root := &tcclient.Credentials{ClientID: server.Credentials().ClientID, AccessToken: server.Credentials().AccessToken}
	d.queue, d.auth = tcqueue.New(root, server.RootURL()), tcauth.New(root, server.RootURL())
	return d
}

// connect returns a client that makes its connections anew for each test.
func connect(tb testing.TB, cfg Config) *Client {
	tb.Helper()
	c, disconnect, err := NewClient(cfg, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(disconnect)
	return c
}

// breaking breaks transfers of content half way.
type breaking struct {
	base   http.RoundTripper
	breaks *atomic.Int64
}

var errBroken = errors.New("connection reset")

func (b *breaking) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPut || req.Header.Get("Authorization") != "" || b.breaks.Add(-1) < 0 {
		return b.base.RoundTrip(req)
	}
	_, err := io.CopyN(io.Discard, req.Body, req.ContentLength/2)
	return nil, errors.Join(errBroken, err, req.Body.Close())
}

// Queue implements queuetest.Harness.
func (d *deployment) Queue(testing.TB) queue.Queue { return NewQueue(d.client) }

// AddTask implements queuetest.Harness.
func (d *deployment) AddTask(tb testing.TB, t task.Definition) task.ID {
	tb.Helper()
	now := time.Now()
	request := &tcqueue.TaskDefinitionRequest{
		TaskQueueID: "test/queue",
		Created:     tcclient.Time(now), Deadline: tcclient.Time(now.Add(time.Hour)), Expires: tcclient.Time(now.Add(24 * time.Hour)),
		Payload: []byte(`{}`), Priority: "lowest", Requires: "all-completed", Retries: 5, SchedulerID: "test",
		Scopes: t.Scopes, Dependencies: []string{}, Routes: []string{}, Extra: []byte(`{}`), Tags: map[string]string{},
		Metadata: tcqueue.TaskMetadata{Name: "n", Description: "d", Owner: "owner@example.com", Source: "https://example.com"},
	}
	if t.Payload != nil {
		request.Payload = t.Payload
	}
	if t.Scopes == nil {
		request.Scopes = []string{}
	}
	if t.Metadata != (task.Metadata{}) {
		request.Metadata = tcqueue.TaskMetadata{
			Name: t.Metadata.Name, Description: t.Metadata.Description, Owner: t.Metadata.Owner, Source: t.Metadata.Source,
		}
	}
	id := slugid.Nice()
	request.TaskGroupID = id
	if _, err := d.queue.CreateTask(id, request); err != nil {
		tb.Fatal(err)
	}
	return task.ID(id)
}

// Cancel implements queuetest.Harness.
func (d *deployment) Cancel(tb testing.TB, id task.ID) {
	tb.Helper()
	if _, err := d.queue.CancelTask(string(id)); err != nil {
		tb.Fatal(err)
	}
}

// Expire implements queuetest.Harness.
func (d *deployment) Expire(tb testing.TB, id task.RunID) {
	tb.Helper()
	for d.run(tb, id).State == "running" {
		<-time.After(100 * time.Millisecond)
		if tb.Context().Err() != nil {
			tb.Fatal("the claim does not expire")
		}
	}
}

// Resolution implements queuetest.Harness.
func (d *deployment) Resolution(tb testing.TB, id task.RunID) run.Resolution {
	tb.Helper()
	switch r := d.run(tb, id); r.State {
	case "completed":
		return run.Resolution{Outcome: run.Completed}
	case "failed":
		return run.Resolution{Outcome: run.Failed}
	case "exception":
		return run.Resolution{Outcome: run.Exception, Reason: run.Reason(r.ReasonResolved)}
	default:
		return run.Resolution{}
	}
}

func (d *deployment) run(tb testing.TB, id task.RunID) tcqueue.RunInformation {
	tb.Helper()
	status, err := d.queue.Status(string(id.Task))
	if err != nil {
		tb.Fatal(err)
	}
	return status.Status.Runs[id.Run]
}

// Opener implements artifacttest.Harness.
func (d *deployment) Opener(testing.TB) artifact.Opener { return NewArtifacts(d.client) }

// Claim implements artifacttest.Harness.
func (d *deployment) Claim(tb testing.TB) queue.Claim {
	tb.Helper()
	d.AddTask(tb, task.Definition{})
	claims, err := NewQueue(d.client).Claim(tb.Context(), 1)
	if err != nil || len(claims) != 1 {
		tb.Fatalf("granted %d claims, %v", len(claims), err)
	}
	return claims[0]
}

// Break implements artifacttest.Harness.
func (d *deployment) Break(_ testing.TB, n int) { d.breaks.Store(int64(n)) }

// AddRole implements authtest.Harness.
func (d *deployment) AddRole(tb testing.TB, role string, scopes task.Scopes) {
	tb.Helper()
	if _, err := d.auth.CreateRole(role, &tcauth.CreateRoleRequest{Description: "d", Scopes: scopes}); err != nil {
		tb.Fatal(err)
	}
}

// Expander implements authtest.Harness.
func (d *deployment) Expander(testing.TB) auth.Expander { return NewAuth(d.client) }

// ops are the methods that make each type of artifact.
var ops = map[string]artifacttest.Op{
	"s3": artifacttest.Upload, "object": artifacttest.Upload, "reference": artifacttest.Redirect,
	"link": artifacttest.Link, "error": artifacttest.Explain,
}

// Artifact implements artifacttest.Harness.
func (d *deployment) Artifact(tb testing.TB, id task.RunID, name string) (artifacttest.Artifact, bool) {
	tb.Helper()
	a, ok := d.described(tb, id, name)
	if !ok {
		return a, false
	}
	var content struct{ URL, Reason, Message, Name, StorageType string }
	if !d.call(tb, call{
		service: "queue", name: "artifact", method: http.MethodGet,
		path: runPath(id, segments("/artifact-content/", name)), out: &content,
	}) {
		return a, false
	}
	switch content.StorageType {
	case "reference":
		a.URL = content.URL
	case "error":
		a.Absence, a.Detail = artifact.Absence(content.Reason), content.Message
	case "object":
		var download struct{ URL string }
		if !d.call(tb, call{
			service: "object", name: "startDownload", method: http.MethodPut,
			path: segments("/start-download/", content.Name), out: &download,
			in: map[string]any{"acceptDownloadMethods": map[string]any{"simple": true}},
		}) {
			return a, false
		}
		ok := d.download(tb, download.URL, &a)
		return a, ok
	default:
		ok := d.download(tb, content.URL, &a)
		return a, ok
	}
	return a, true
}

// call makes a call as the client that may do everything, and reports whether
// what it is about exists.
func (d *deployment) call(tb testing.TB, r call) bool {
	tb.Helper()
	r.creds = d.client.cfg.Credentials
	err := missing(d.client.do(tb.Context(), r))
	if err != nil && !errors.Is(err, ErrNotFound) {
		tb.Fatal(err)
	}
	return err == nil
}

// download gives a what is at url, as it is transferred, if anything is.
func (d *deployment) download(tb testing.TB, url string, a *artifacttest.Artifact) bool {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := d.client.http.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	a.Encoding = resp.Header.Get("Content-Encoding")
	a.Body, err = io.ReadAll(resp.Body)
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
		return true
	case resp.StatusCode == http.StatusNotFound:
		return false
	}
	tb.Fatalf("download: %s, %v: %.200s", resp.Status, err, a.Body)
	return false
}

// described returns what the queue's list of artifacts says of one.
func (d *deployment) described(tb testing.TB, id task.RunID, name string) (artifacttest.Artifact, bool) {
	tb.Helper()
	list, err := d.queue.ListArtifacts(string(id.Task), "0", "", "")
	if err != nil {
		tb.Fatal(err)
	}
	for _, a := range list.Artifacts {
		if a.Name == name {
			return artifacttest.Artifact{Op: ops[a.StorageType], ContentType: a.ContentType, Expires: time.Time(a.Expires)}, true
		}
	}
	return artifacttest.Artifact{}, false
}
