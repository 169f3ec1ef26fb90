package devqueue_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcindex"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcpurgecache"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcsecrets"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcworkermanager"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

func in(d time.Duration) tcclient.Time { return tcclient.Time(time.Now().Add(d)) }

func TestIndex(t *testing.T) {
	server := open(t, devqueue.Config{})
	index := tcindex.New(credentials(server.Credentials()), server.RootURL())
	index.HTTPClient = httpClient(t)
	first, second := slugid.Nice(), slugid.Nice()
	insert := func(path, id string, rank float64) {
		t.Helper()
		_, err := index.InsertTask(path, &tcindex.InsertTaskRequest{TaskID: id, Rank: rank, Data: json.RawMessage(`{"a":1}`), Expires: in(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
	}
	find := func(path, want string) {
		t.Helper()
		got, err := index.FindTask(path)
		if err != nil || got.TaskID != want || got.Namespace != path {
			t.Errorf("%s is %+v, want %s: %v", path, got, want, err)
		}
	}
	insert("project.x.v1.2.latest", first, 1)
	insert("project.x.v1.2.latest", second, 0)
	find("project.x.v1.2.latest", first)
	insert("project.x.v1.2.latest", second, 1)
	find("project.x.v1.2.latest", second)
	insert("project.y", first, 0)
	insert("top", first, 0)
	namespaces, err := index.ListNamespaces("project", "", "")
	if err != nil || len(namespaces.Namespaces) != 1 || namespaces.Namespaces[0].Namespace != "project.x" || namespaces.Namespaces[0].Name != "x" {
		t.Errorf("namespaces %+v, %v", namespaces, err)
	}
	tasks, err := index.ListTasks("project", "", "")
	if err != nil || len(tasks.Tasks) != 1 || tasks.Tasks[0].Namespace != "project.y" {
		t.Errorf("tasks %+v, %v", tasks, err)
	}
	_, err = index.FindTask("project.x")
	refused(t, err, 404)
	if err := index.DeleteTask("top"); err != nil {
		t.Fatal(err)
	}
	_, err = index.FindTask("top")
	refused(t, err, 404)
}

func TestCompletedTasksAreIndexedByTheirRoutes(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, func(d *tcqueue.TaskDefinitionRequest) {
		d.Routes = []string{"index.built.v1.0", "notify.me"}
		d.Extra = json.RawMessage(`{"index": {"rank": 7, "data": {"x": "y"}}}`)
	})
	index := tcindex.New(credentials(server.Credentials()), server.RootURL())
	index.HTTPClient = httpClient(t)
	_, err := index.FindTask("built.v1.0")
	refused(t, err, 404)
	mine := asTask(t, server, claimOne(t, root).Credentials)
	_, err = mine.CreateArtifact(id, "0", "public/x", request("reference", time.Now().Add(time.Hour), `, "contentType": "a/b", "url": "https://example.com/x"`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.ReportCompleted(id, "0"); err != nil {
		t.Fatal(err)
	}
	got, err := index.FindTask("built.v1.0")
	if err != nil || got.TaskID != id || got.Rank != 7 || string(got.Data) != `{"x":"y"}` {
		t.Errorf("indexed %+v, %v", got, err)
	}
	redirect := fetch(t, "GET", server.RootURL()+"/api/index/v1/task/built.v1.0/artifacts/public/x", "", nil)
	if want := server.RootURL() + "/api/queue/v1/task/" + id + "/artifacts/public%2Fx"; redirect.status != http.StatusSeeOther || redirect.header.Get("Location") != want {
		t.Errorf("artifact by index: %d, %s, want %s", redirect.status, redirect.header.Get("Location"), want)
	}
}

func TestPurgeCache(t *testing.T) {
	server := open(t, devqueue.Config{})
	purge := tcpurgecache.New(credentials(server.Credentials()), server.RootURL())
	purge.HTTPClient = httpClient(t)
	if err := purge.PurgeCache(taskQueue, &tcpurgecache.PurgeCacheRequest{CacheName: "gcc"}); err != nil {
		t.Fatal(err)
	}
	for since, want := range map[string]int{
		"": 1, time.Now().Add(-time.Minute).UTC().Format(time.RFC3339): 1, time.Now().Add(time.Minute).UTC().Format(time.RFC3339): 0,
	} {
		got, err := purge.PurgeRequests(taskQueue, since)
		if err != nil || len(got.Requests) != want {
			t.Errorf("since %q: %+v, %v, want %d", since, got, err, want)
		}
	}
	if got, err := purge.PurgeRequests("test/other", ""); err != nil || len(got.Requests) != 0 {
		t.Errorf("another pool: %+v, %v", got, err)
	}
	all, err := purge.AllPurgeRequests("", "")
	if err != nil || len(all.Requests) != 1 || all.Requests[0].CacheName != "gcc" || all.Requests[0].WorkerType != "fast" {
		t.Errorf("all: %+v, %v", all, err)
	}
	_, err = purge.PurgeRequests(taskQueue, "yesterday")
	refused(t, err, 400)
}

func TestSecrets(t *testing.T) {
	server := open(t, devqueue.Config{})
	secrets := tcsecrets.New(credentials(server.Credentials()), server.RootURL())
	secrets.HTTPClient = httpClient(t)
	const name = "worker-pool:test/fast"
	for expires, want := range map[time.Duration]int{time.Hour: 0, -time.Hour: 404} {
		if err := secrets.Set(name, &tcsecrets.Secret{Secret: json.RawMessage(`{"a":{"b":1}}`), Expires: in(expires)}); err != nil {
			t.Fatal(err)
		}
		got, err := secrets.Get(name)
		refused(t, err, want)
		if want == 0 && string(got.Secret) != `{"a":{"b":1}}` {
			t.Errorf("secret %s", got.Secret)
		}
	}
	if list, err := secrets.List("", ""); err != nil || cmp.Diff([]string{name}, list.Secrets) != "" {
		t.Errorf("list %+v, %v", list, err)
	}
	if err := secrets.Remove(name); err != nil {
		t.Fatal(err)
	}
	_, err := secrets.Get(name)
	refused(t, err, 404)
	nobody := tcsecrets.New(nil, server.RootURL())
	nobody.HTTPClient = httpClient(t)
	_, err = nobody.Get(name)
	refused(t, err, 403)
}

func TestWorkerOfAStaticPool(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := tcworkermanager.New(credentials(server.Credentials()), server.RootURL())
	root.HTTPClient = httpClient(t)
	_, err := root.CreateWorkerPool(taskQueue, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "static", Owner: "me@example.com", Description: "d", Config: json.RawMessage(`{"workerConfig": {"x": 1}, "lifecycle": {"reregistrationTimeout": 3600}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if pool, err := root.WorkerPool(taskQueue); err != nil || pool.ProviderID != "static" || pool.WorkerPoolID != taskQueue {
		t.Errorf("pool %+v, %v", pool, err)
	}
	secret := slugid.Nice() + slugid.Nice()
	info, err := json.Marshal(map[string]string{"staticSecret": secret})
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.CreateWorker(taskQueue, group, worker, &tcworkermanager.WorkerCreationUpdateRequest{Expires: in(time.Hour), Capacity: 1, ProviderInfo: info})
	if err != nil {
		t.Fatal(err)
	}
	nobody := tcworkermanager.New(nil, server.RootURL())
	nobody.HTTPClient = httpClient(t)
	register := func(secret string) (*tcworkermanager.RegisterWorkerResponse, error) {
		proof, err := json.Marshal(map[string]string{"staticSecret": secret})
		if err != nil {
			t.Fatal(err)
		}
		return nobody.RegisterWorker(&tcworkermanager.RegisterWorkerRequest{
			ProviderID: "static", WorkerPoolID: taskQueue, WorkerGroup: group, WorkerID: worker, WorkerIdentityProof: proof,
		})
	}
	_, err = register(slugid.Nice() + slugid.Nice())
	refused(t, err, 400)
	got, err := register(secret)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.WorkerConfig) != `{"x":1}` || time.Until(time.Time(got.Expires)) > time.Hour {
		t.Errorf("registered %+v", got)
	}
	credentials := &tcclient.Credentials{ClientID: got.Credentials.ClientID, AccessToken: got.Credentials.AccessToken, Certificate: got.Credentials.Certificate}
	create(t, asRoot(t, server), nil)
	claimOne(t, queueAs(t, server, credentials))
	mine := tcworkermanager.New(credentials, server.RootURL())
	mine.HTTPClient = httpClient(t)
	again := &tcworkermanager.ReregisterWorkerRequest{WorkerPoolID: taskQueue, WorkerGroup: group, WorkerID: worker, Secret: got.Secret}
	if _, err := mine.ReregisterWorker(again); err != nil {
		t.Fatal(err)
	}
	_, err = mine.ReregisterWorker(again) // Each secret is good for once.
	refused(t, err, 400)
	_, err = mine.ReportWorkerError(taskQueue, &tcworkermanager.WorkerErrorReport{
		WorkerGroup: group, WorkerID: worker, Kind: "oops", Title: "t", Description: "d", Extra: json.RawMessage(`{"k":"v"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := root.ListWorkerPoolErrors(taskQueue, "", ""); err != nil || len(list.WorkerPoolErrors) != 1 || list.WorkerPoolErrors[0].Kind != "oops" {
		t.Errorf("errors %+v, %v", list, err)
	}
	terminate := func() (answer struct{ Terminate bool }) {
		t.Helper()
		_, _, err := (*tcclient.Client)(mine).APICall(nil, "GET", "/workers/test%2Ffast/here/me/should-terminate", &answer, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if terminate().Terminate {
		t.Error("a worker that is needed is told to go")
	}
	if err := mine.RemoveWorker(taskQueue, group, worker); err != nil {
		t.Fatal(err)
	}
	if !terminate().Terminate {
		t.Error("a worker that was removed is told to stay")
	}
	if w, err := root.Worker(taskQueue, group, worker); err != nil || w.State != "stopped" {
		t.Errorf("worker %+v, %v", w, err)
	}
	_, err = register(secret)
	refused(t, err, 400)
}

// A worker in EC2 registers once, as the instance that was requested.
func TestWorkerInEC2(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := tcworkermanager.New(credentials(server.Credentials()), server.RootURL())
	root.HTTPClient = httpClient(t)
	_, err := root.CreateWorkerPool(taskQueue, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "aws", Owner: "me@example.com", Description: "d", Config: json.RawMessage(`{}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.CreateWorker(taskQueue, group, worker, &tcworkermanager.WorkerCreationUpdateRequest{
		Expires: in(time.Hour), Capacity: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	nobody := tcworkermanager.New(nil, server.RootURL())
	nobody.HTTPClient = httpClient(t)
	register := func(proof map[string]string) error {
		raw, err := json.Marshal(proof)
		if err != nil {
			t.Fatal(err)
		}
		_, err = nobody.RegisterWorker(&tcworkermanager.RegisterWorkerRequest{
			ProviderID: "aws", WorkerPoolID: taskQueue, WorkerGroup: group, WorkerID: worker, WorkerIdentityProof: raw,
		})
		return err
	}
	document := `{"instanceId": "` + worker + `", "region": "` + group + `"}`
	for _, proof := range []map[string]string{
		{"staticSecret": slugid.Nice() + slugid.Nice()},
		{"document": document},
		{"document": "not JSON", "signature": "s"},
		{"document": `{"instanceId": "another", "region": "` + group + `"}`, "signature": "s"},
	} {
		refused(t, register(proof), 400)
	}
	good := map[string]string{"document": document, "signature": "s"}
	if err := register(good); err != nil {
		t.Fatal(err)
	}
	if w, err := root.Worker(taskQueue, group, worker); err != nil || w.State != "running" {
		t.Errorf("worker %+v, %v", w, err)
	}
	refused(t, register(good), 400)
}

func TestWorkersOfTheQueue(t *testing.T) {
	server := open(t, devqueue.Config{PollTimeout: 10 * time.Millisecond})
	root := asRoot(t, server)
	_, err := root.GetWorker("test", "fast", group, worker)
	refused(t, err, 404)
	id := create(t, root, nil)
	claimOne(t, root)
	got, err := root.GetWorker("test", "fast", group, worker)
	if err != nil || len(got.RecentTasks) != 1 || got.RecentTasks[0].TaskID != id {
		t.Errorf("worker %+v, %v", got, err)
	}
	_, err = root.QuarantineWorker("test", "fast", group, worker, &tcqueue.QuarantineWorkerRequest{QuarantineUntil: in(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	create(t, root, nil)
	if claims := claim(t, root, 1); len(claims) != 0 {
		t.Errorf("a quarantined worker got %d tasks", len(claims))
	}
	for filter, want := range map[string]int{"": 1, "true": 1, "false": 0} {
		list, err := root.ListWorkers("test", "fast", "", "", filter)
		if err != nil || len(list.Workers) != want {
			t.Errorf("workers, quarantined=%q: %+v, %v", filter, list, err)
		}
	}
	if queues, err := root.ListTaskQueues("", ""); err != nil || len(queues.TaskQueues) != 1 || queues.TaskQueues[0].TaskQueueID != taskQueue {
		t.Errorf("task queues %+v, %v", queues, err)
	}
	if _, err := root.DeclareWorker("test", "fast", group, "new", &tcqueue.WorkerRequest{Expires: in(time.Hour)}); err != nil {
		t.Error(err)
	}
}
