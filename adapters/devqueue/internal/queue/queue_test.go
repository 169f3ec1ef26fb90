package queue_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/object"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/queue"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// These tests are about time, so they run on the clock of a bubble, where a
// network cannot be: calls reach the handler directly.

const (
	pool  = "test/fast"
	token = "token"
)

// directory knows one client, who may do everything.
type directory struct{}

func (directory) Client(string) (auth.Client, bool, error) {
	return auth.Client{AccessToken: token, Scopes: task.Scopes{"*"}}, true, nil
}

func (directory) Roles() (auth.Roles, error) { return auth.Roles{}, nil }

// direct hands requests to a handler.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RequestURI, r.Host = r.URL.RequestURI(), r.URL.Host
	recorder := httptest.NewRecorder()
	d.handler.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// serve runs a queue until the test ends, and returns a client of it.
func serve(tb testing.TB) *tcqueue.Queue {
	tb.Helper()
	dir := tb.TempDir()
	db, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		tb.Fatal(err)
	}
	contents, err := content.Open(filepath.Join(dir, "artifacts"), db, "http://localhost", "secret")
	if err != nil {
		tb.Fatal(err)
	}
	authority := auth.New(directory{}, "secret")
	log := slog.New(slog.DiscardHandler)
	q, err := queue.New(queue.Config{
		DB: db, Authority: authority, Contents: contents, Objects: object.New(db, contents), Log: log,
		ClaimTimeout: 20 * time.Minute, PollTimeout: 20 * time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var group sync.WaitGroup
	group.Go(func() { q.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		group.Wait()
		if err := contents.Close(); err != nil {
			tb.Error(err)
		}
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	client := tcqueue.New(&tcclient.Credentials{ClientID: "root", AccessToken: token}, "http://localhost")
	client.HTTPClient = &http.Client{Transport: direct{api.NewHandler(authority, log, q.API())}}
	return client
}

// create creates a task that is due after a while.
func create(t *testing.T, q *tcqueue.Queue, deadline time.Duration, retries int64, priority string) string {
	t.Helper()
	id := slugid.Nice()
	now := time.Now()
	d := map[string]any{
		"taskQueueId": pool, "created": api.Date(now), "deadline": api.Date(now.Add(deadline)), "payload": map[string]any{},
		"retries": retries, "priority": priority,
		"metadata": map[string]string{"name": "n", "description": "d", "owner": "o", "source": "https://example.com"},
	}
	if _, _, err := (*tcclient.Client)(q).APICall(&d, "PUT", "/task/"+id, new(tcqueue.TaskStatusResponse), nil); err != nil {
		t.Fatal(err)
	}
	return id
}

func claim(t *testing.T, q *tcqueue.Queue, n int64) []tcqueue.TaskClaim {
	t.Helper()
	got, err := q.ClaimWork(pool, &tcqueue.ClaimWorkRequest{WorkerGroup: "g", WorkerID: "w", Tasks: n})
	if err != nil {
		t.Error(err)
		return nil
	}
	return got.Tasks
}

func status(t *testing.T, q *tcqueue.Queue, id string) tcqueue.TaskStatusStructure {
	t.Helper()
	got, err := q.Status(id)
	if err != nil {
		t.Fatal(err)
	}
	return got.Status
}

func TestClaimWorkWaitsForATask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		begun := time.Now()
		if claims := claim(t, q, 1); len(claims) != 0 || time.Since(begun) != 20*time.Second {
			t.Errorf("claimed %d tasks after %v", len(claims), time.Since(begun))
		}
		begun = time.Now()
		var group sync.WaitGroup
		group.Go(func() {
			if claims := claim(t, q, 1); len(claims) != 1 || time.Since(begun) != 7*time.Second {
				t.Errorf("claimed %d tasks after %v", len(claims), time.Since(begun))
			}
		})
		<-time.After(7 * time.Second)
		create(t, q, time.Hour, 0, "lowest")
		group.Wait()
	})
}

func TestEachTaskGoesToOneOfThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		got := make(chan string, 8)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for _, c := range claim(t, q, 32) {
					got <- c.Status.TaskID
				}
			})
		}
		synctest.Wait()
		want := map[string]bool{}
		for range 5 {
			want[create(t, q, time.Hour, 0, "lowest")] = true
		}
		group.Wait()
		close(got)
		for id := range got {
			if !want[id] {
				t.Errorf("task %s was claimed twice", id)
			}
			delete(want, id)
		}
		if len(want) > 0 {
			t.Errorf("%d tasks were not claimed", len(want))
		}
	})
}

func TestTasksOfHighPriorityGoFirstAndOlderOnesBeforeNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		var want [3]string
		want[1] = create(t, q, time.Hour, 0, "low")
		<-time.After(time.Second)
		want[2] = create(t, q, time.Hour, 0, "low")
		<-time.After(time.Second)
		want[0] = create(t, q, time.Hour, 0, "very-high")
		for _, id := range want {
			if claims := claim(t, q, 1); len(claims) != 1 || claims[0].Status.TaskID != id {
				t.Errorf("claimed %+v, want %s", claims, id)
			}
		}
	})
}

func TestNoMoreThan32TasksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		for range 33 {
			create(t, q, time.Hour, 0, "lowest")
		}
		if claims := claim(t, q, 32); len(claims) != 32 {
			t.Errorf("claimed %d", len(claims))
		}
		_, err := q.ClaimWork(pool, &tcqueue.ClaimWorkRequest{WorkerGroup: "g", WorkerID: "w", Tasks: 33})
		if err == nil {
			t.Error("claimed 33 tasks in one call")
		}
	})
}

func TestClaimsExpireUnlessTheyAreReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		id := create(t, q, 5*time.Hour, 1, "lowest")
		claim(t, q, 1)
		<-time.After(15 * time.Minute)
		if _, err := q.ReclaimTask(id, "0"); err != nil {
			t.Fatal(err)
		}
		<-time.After(19 * time.Minute)
		if s := status(t, q, id); s.State != "running" || len(s.Runs) != 1 {
			t.Errorf("a claim that was prolonged: %+v", s)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		s := status(t, q, id)
		if s.State != "pending" || len(s.Runs) != 2 || s.Runs[0].ReasonResolved != "claim-expired" || s.Runs[1].ReasonCreated != "retry" {
			t.Errorf("a claim that ended: %+v", s)
		}
		if _, err := q.ReportCompleted(id, "0"); err == nil {
			t.Error("a run was resolved after its claim had ended")
		}
		claim(t, q, 1)
		<-time.After(20 * time.Minute)
		synctest.Wait()
		if s := status(t, q, id); s.State != "exception" || len(s.Runs) != 2 {
			t.Errorf("no retries are left: %+v", s)
		}
	})
}

func TestDeadlinesEndTasksInEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		running := create(t, q, 10*time.Minute, 5, "high")
		claims := claim(t, q, 1)
		pending := create(t, q, 10*time.Minute, 5, "lowest")
		done := create(t, q, 10*time.Minute, 5, "high")
		if claims = append(claims, claim(t, q, 1)...); len(claims) != 2 {
			t.Fatalf("claimed %d tasks", len(claims))
		}
		if _, err := q.ReportCompleted(done, "0"); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Minute)
		synctest.Wait()
		for _, id := range []string{running, pending} {
			if s := status(t, q, id); s.State != "exception" || s.Runs[0].ReasonResolved != "deadline-exceeded" || len(s.Runs) != 1 {
				t.Errorf("after the deadline: %+v", s)
			}
		}
		if s := status(t, q, done); s.State != "completed" {
			t.Errorf("a task that was completed: %+v", s)
		}
		<-time.After(time.Millisecond)
		for name, err := range map[string]error{
			"rerun": second(q.RerunTask(pending)), "cancel": second(q.CancelTask(pending)), "reclaim": second(q.ReclaimTask(running, "0")),
		} {
			if err == nil {
				t.Errorf("%s after the deadline", name)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestArtifactsAreTakenForAWhileAfterAnException(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := serve(t)
		id := create(t, q, 5*time.Hour, 0, "lowest")
		claim(t, q, 1)
		if _, err := q.ReportException(id, "0", &tcqueue.TaskExceptionRequest{Reason: "internal-error"}); err != nil {
			t.Fatal(err)
		}
		put := func(name string) error {
			raw, err := json.Marshal(map[string]string{"storageType": "link", "artifact": "x", "expires": api.Date(time.Now().Add(time.Hour))})
			if err != nil {
				t.Fatal(err)
			}
			_, err = q.CreateArtifact(id, "0", name, (*tcqueue.PostArtifactRequest)(&raw))
			return err
		}
		<-time.After(20 * time.Minute)
		if err := put("early"); err != nil {
			t.Error(err)
		}
		<-time.After(6 * time.Minute)
		if err := put("late"); err == nil {
			t.Error("an artifact was taken long after the exception")
		}
	})
}

// FuzzCreateTask checks that whatever is sent as a task is accepted or refused,
// and nothing of the server's own making goes wrong.
func FuzzCreateTask(f *testing.F) {
	q := serve(f)
	now := api.Date(time.Now())
	f.Add(`{"taskQueueId": "a/b", "created": "` + now + `", "deadline": "` + now + `", "payload": {}}`)
	f.Add(`{"retries": 1e400, "deadline": "9999-12-31T23:59:60.9Z", "metadata": null}`)
	f.Add(`[`)
	client := (*tcclient.Client)(q)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://localhost/api/queue/v1/task/"+slugid.Nice(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if err := client.Credentials.SignRequest(r); err != nil {
			t.Fatal(err)
		}
		response, err := client.HTTPClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode >= http.StatusInternalServerError {
			t.Errorf("%q is answered with %s", body, response.Status)
		}
	})
}
