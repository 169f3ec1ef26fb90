package devqueue_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/httpbackoff/v3"
	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// processDir names the variable that makes the test binary a deployment of its
// own, with the state in the named directory, until it is killed.
const processDir = "DEVQUEUE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(processDir); dir != "" {
		serveForever(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	taskQueue = "test/fast"
	group     = "here"
	worker    = "me"
)

// open starts a deployment that shuts with the test.
func open(tb testing.TB, cfg devqueue.Config) *devqueue.Server {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	server, shut, err := devqueue.Open(tb.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(shut)
	tb.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server
}

// credentials are c for client-go.
func credentials(c task.Credentials) *tcclient.Credentials {
	return &tcclient.Credentials{ClientID: c.ClientID, AccessToken: c.AccessToken, Certificate: c.Certificate}
}

// queueAs returns a client of the queue that leaves no connections behind.
func queueAs(tb testing.TB, server *devqueue.Server, c *tcclient.Credentials) *tcqueue.Queue {
	tb.Helper()
	q := tcqueue.New(c, server.RootURL())
	q.HTTPClient = httpClient(tb)
	q.Context = tb.Context()
	return q
}

func httpClient(tb testing.TB) *http.Client {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// asRoot returns a client of the queue that may do everything.
func asRoot(tb testing.TB, server *devqueue.Server) *tcqueue.Queue {
	tb.Helper()
	return queueAs(tb, server, credentials(server.Credentials()))
}

// asTask returns a client of the queue with the credentials of a claim.
func asTask(tb testing.TB, server *devqueue.Server, c tcqueue.TaskCredentials) *tcqueue.Queue {
	tb.Helper()
	return queueAs(tb, server, &tcclient.Credentials{ClientID: c.ClientID, AccessToken: c.AccessToken, Certificate: c.Certificate})
}

// definition returns a task that is due in an hour.
func definition() *tcqueue.TaskDefinitionRequest {
	now := time.Now()
	return &tcqueue.TaskDefinitionRequest{
		TaskQueueID: taskQueue, SchedulerID: "-", ProjectID: "none", Priority: "lowest", Requires: "all-completed",
		Retries: 1, Created: tcclient.Time(now), Deadline: tcclient.Time(now.Add(time.Hour)), Expires: tcclient.Time(now.Add(24 * time.Hour)),
		Dependencies: []string{}, Routes: []string{}, Scopes: []string{},
		Payload: json.RawMessage(`{"command":["true"]}`), Tags: map[string]string{}, Extra: json.RawMessage(`{}`),
		Metadata: tcqueue.TaskMetadata{Name: "a task", Description: "of a test", Owner: "me@example.com", Source: "https://example.com"},
	}
}

// create creates a task and returns its id.
func create(tb testing.TB, q *tcqueue.Queue, edit func(*tcqueue.TaskDefinitionRequest)) string {
	tb.Helper()
	d := definition()
	if edit != nil {
		edit(d)
	}
	return createThis(tb, q, d)
}

func createThis(tb testing.TB, q *tcqueue.Queue, d *tcqueue.TaskDefinitionRequest) string {
	tb.Helper()
	// The client marshals a time of nothing as year 1, so leave nothing out.
	if time.Time(d.Expires).IsZero() {
		d.Expires = tcclient.Time(time.Time(d.Deadline).Add(time.Hour))
	}
	id := slugid.Nice()
	raw, err := json.Marshal(d)
	if err != nil {
		tb.Fatal(err)
	}
	if err := put(q, id, raw); err != nil {
		tb.Fatalf("create task: %v", err)
	}
	return id
}

// put creates a task from its JSON. Client-go marshals empty names of task
// queues, which a queue refuses.
func put(q *tcqueue.Queue, id string, raw []byte) error {
	var d map[string]any
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	for _, name := range []string{"provisionerId", "workerType", "taskGroupId", "taskQueueId", "projectId", "schedulerId", "requires", "priority"} {
		if d[name] == "" {
			delete(d, name)
		}
	}
	_, _, err := (*tcclient.Client)(q).APICall(&d, "PUT", "/task/"+id, new(tcqueue.TaskStatusResponse), nil)
	return err
}

// claim claims up to n tasks.
func claim(tb testing.TB, q *tcqueue.Queue, n int64) []tcqueue.TaskClaim {
	tb.Helper()
	got, err := q.ClaimWork(taskQueue, &tcqueue.ClaimWorkRequest{WorkerGroup: group, WorkerID: worker, Tasks: n})
	if err != nil {
		tb.Fatalf("claim work: %v", err)
	}
	return got.Tasks
}

// claimOne claims a task that must be there.
func claimOne(tb testing.TB, q *tcqueue.Queue) tcqueue.TaskClaim {
	tb.Helper()
	claims := claim(tb, q, 1)
	if len(claims) != 1 {
		tb.Fatalf("claimed %d tasks, want 1", len(claims))
	}
	return claims[0]
}

// status returns the status of a task.
func status(tb testing.TB, q *tcqueue.Queue, id string) tcqueue.TaskStatusStructure {
	tb.Helper()
	got, err := q.Status(id)
	if err != nil {
		tb.Fatalf("status of %s: %v", id, err)
	}
	return got.Status
}

// refused checks that a call was answered with an HTTP status.
func refused(tb testing.TB, err error, want int) {
	tb.Helper()
	if got := code(err); got != want {
		tb.Errorf("got status %d, want %d: %v", got, want, err)
	}
}

// code returns the HTTP status that err is about, 0 if there is none.
func code(err error) int {
	if bad, ok := errors.AsType[*tcclient.APICallException](err); ok {
		if bad, ok := errors.AsType[httpbackoff.BadHttpResponseCode](bad.RootCause); ok {
			return bad.HttpResponseCode
		}
	}
	return 0
}

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	length int64
	body   string
}

// fetch performs a request with plain HTTP.
func fetch(tb testing.TB, method, url, body string, header map[string]string) reply {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	response, err := httpClient(tb).Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, response.ContentLength, string(got)}
}
