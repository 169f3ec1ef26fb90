package devqueue_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

func TestTaskFromCreationToCompletion(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.Scopes = []string{"queue:get-task:*"} })
	c := claimOne(t, root)
	if c.Status.TaskID != id || c.RunID != 0 || c.Status.State != "running" || c.Task.TaskQueueID != taskQueue || c.Task.WorkerType != "fast" {
		t.Errorf("claimed %+v", c)
	}
	if left := time.Until(time.Time(c.TakenUntil)); left < 19*time.Minute || left > 20*time.Minute {
		t.Errorf("the claim lasts %v", left)
	}
	mine := asTask(t, server, c.Credentials)
	if _, err := mine.Task(id); err != nil {
		t.Errorf("a scope of the task's own: %v", err)
	}
	again, err := mine.ReclaimTask(id, "0")
	if err != nil {
		t.Fatal(err)
	}
	if time.Time(again.TakenUntil).Before(time.Time(c.TakenUntil)) {
		t.Errorf("reclaimed until %v after %v", again.TakenUntil, c.TakenUntil)
	}
	for range 2 { // The same report again is fine.
		if _, err := mine.ReportCompleted(id, "0"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = mine.ReportFailed(id, "0")
	refused(t, err, 409)
	_, err = mine.ReportException(id, "0", &tcqueue.TaskExceptionRequest{Reason: "internal-error"})
	refused(t, err, 409)
	_, err = mine.ReclaimTask(id, "0")
	refused(t, err, 409)
	if s := status(t, root, id); s.State != "completed" || s.Runs[0].ReasonResolved != "completed" || s.Runs[0].WorkerID != worker {
		t.Errorf("status %+v", s)
	}
}

func TestCredentialsOfAClaimAreForItsRunAlone(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	create(t, root, nil)
	create(t, root, nil)
	claims := claim(t, root, 2)
	if len(claims) != 2 {
		t.Fatalf("claimed %d tasks", len(claims))
	}
	_, err := asTask(t, server, claims[0].Credentials).ReportCompleted(claims[1].Status.TaskID, "0")
	refused(t, err, 403)
	_, err = asTask(t, server, claims[0].Credentials).CancelTask(claims[0].Status.TaskID)
	refused(t, err, 403)
}

func TestCreateTaskIsIdempotent(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := slugid.Nice()
	d := definition()
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := put(root, id, raw); err != nil {
			t.Fatal(err)
		}
	}
	if s := status(t, root, id); len(s.Runs) != 1 {
		t.Errorf("created twice: %+v", s.Runs)
	}
	d.Payload = json.RawMessage(`{"command":["false"]}`)
	if raw, err = json.Marshal(d); err != nil {
		t.Fatal(err)
	}
	refused(t, put(root, id, raw), 409)
}

func TestDefaultsOfATask(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := slugid.Nice()
	now := time.Now().UTC().Truncate(time.Millisecond)
	raw := fmt.Sprintf(`{"provisionerId": "test", "workerType": "fast", "created": %q, "deadline": %q,
		"payload": {"b": 1.50, "a": "<"}, "metadata": {"name": "n", "description": "d", "owner": "o", "source": "ssh://x/y"}}`,
		now.Format(time.RFC3339Nano), now.Add(time.Hour).Format(time.RFC3339Nano))
	if err := put(root, id, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	got, err := root.Task(id)
	if err != nil {
		t.Fatal(err)
	}
	want := &tcqueue.TaskDefinitionResponse{
		ProvisionerID: "test", WorkerType: "fast", TaskQueueID: taskQueue, SchedulerID: "-", ProjectID: "none", TaskGroupID: id,
		Dependencies: []string{}, Requires: "all-completed", Routes: []string{}, Priority: "lowest", Retries: 5,
		Created: tcclient.Time(now), Deadline: tcclient.Time(now.Add(time.Hour)), Expires: tcclient.Time(now.Add(time.Hour).AddDate(1, 0, 0)),
		Scopes: []string{}, Payload: json.RawMessage(`{"a":"\u003c","b":1.5}`), Tags: map[string]string{}, Extra: json.RawMessage(`{}`),
		Metadata: tcqueue.TaskMetadata{Name: "n", Description: "d", Owner: "o", Source: "ssh://x/y"},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b tcclient.Time) bool { return time.Time(a).Equal(time.Time(b)) })); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
}

func TestBadTasksAreRefused(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	for name, edit := range map[string]func(map[string]any){
		"no task queue":              func(d map[string]any) { delete(d, "taskQueueId") },
		"two task queues":            func(d map[string]any) { d["provisionerId"], d["workerType"] = "a", "b" },
		"unknown property":           func(d map[string]any) { d["colour"] = "green" },
		"no payload":                 func(d map[string]any) { delete(d, "payload") },
		"payload is no object":       func(d map[string]any) { d["payload"] = []string{} },
		"no metadata":                func(d map[string]any) { delete(d, "metadata") },
		"no deadline":                func(d map[string]any) { delete(d, "deadline") },
		"deadline is no date":        func(d map[string]any) { d["deadline"] = "tomorrow" },
		"deadline in six days":       func(d map[string]any) { d["deadline"] = time.Now().Add(6 * 24 * time.Hour) },
		"deadline has passed":        func(d map[string]any) { d["deadline"] = time.Now().Add(-time.Second) },
		"created long ago":           func(d map[string]any) { d["created"] = time.Now().Add(-time.Hour) },
		"created in the future":      func(d map[string]any) { d["created"] = time.Now().Add(30 * time.Minute) },
		"expires before deadline":    func(d map[string]any) { d["expires"] = time.Now().Add(time.Minute) },
		"unknown priority":           func(d map[string]any) { d["priority"] = "urgent" },
		"too many retries":           func(d map[string]any) { d["retries"] = 50 },
		"scope with two stars":       func(d map[string]any) { d["scopes"] = []string{"a**"} },
		"dependency is no task id":   func(d map[string]any) { d["dependencies"] = []string{"x"} },
		"dependency does not exist":  func(d map[string]any) { d["dependencies"] = []string{slugid.Nice()} },
		"task group is no task id":   func(d map[string]any) { d["taskGroupId"] = "x" },
		"source is no URL":           func(d map[string]any) { d["metadata"].(map[string]any)["source"] = "here" },
		"unknown kind of dependency": func(d map[string]any) { d["requires"] = "some" },
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(definition())
			if err != nil {
				t.Fatal(err)
			}
			var d map[string]any
			if err := json.Unmarshal(raw, &d); err != nil {
				t.Fatal(err)
			}
			edit(d)
			if raw, err = json.Marshal(d); err != nil {
				t.Fatal(err)
			}
			id := slugid.Nice()
			refused(t, put(root, id, raw), 400)
			_, err = root.Status(id)
			refused(t, err, 404)
		})
	}
	raw, err := json.Marshal(definition())
	if err != nil {
		t.Fatal(err)
	}
	refused(t, put(root, "no-slugid", raw), 400)
}

func TestErrorsHaveTheFormOfTaskcluster(t *testing.T) {
	server := open(t, devqueue.Config{})
	id := slugid.Nice()
	answer := fetch(t, "GET", server.RootURL()+"/api/queue/v1/task/"+id, "", nil)
	var got struct {
		Code        string `json:"code"`
		Message     string `json:"message"`
		RequestInfo struct {
			Method string            `json:"method"`
			Params map[string]string `json:"params"`
			Time   time.Time         `json:"time"`
		} `json:"requestInfo"`
	}
	if err := json.Unmarshal([]byte(answer.body), &got); err != nil {
		t.Fatal(err)
	}
	if answer.status != http.StatusNotFound || got.Code != "ResourceNotFound" || !strings.Contains(got.Message, id) ||
		got.RequestInfo.Method != "task" || got.RequestInfo.Params["taskId"] != id || got.RequestInfo.Time.IsZero() {
		t.Errorf("%d: %s", answer.status, answer.body)
	}
}

func TestRetries(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	first := claimOne(t, root)
	report := &tcqueue.TaskExceptionRequest{Reason: "worker-shutdown"}
	for range 2 {
		if _, err := asTask(t, server, first.Credentials).ReportException(id, "0", report); err != nil {
			t.Fatal(err)
		}
	}
	second := claimOne(t, root)
	if second.RunID != 1 || second.Status.RetriesLeft != 0 || second.Status.Runs[1].ReasonCreated != "retry" {
		t.Errorf("retried as %+v", second.Status)
	}
	if _, err := asTask(t, server, second.Credentials).ReportException(id, "1", report); err != nil {
		t.Fatal(err)
	}
	if s := status(t, root, id); s.State != "exception" || len(s.Runs) != 2 {
		t.Errorf("retried more often than allowed: %+v", s)
	}
}

func TestCancelRerunSchedule(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	c := claimOne(t, root)
	for range 2 {
		got, err := root.CancelTask(id)
		if err != nil {
			t.Fatal(err)
		}
		if run := got.Status.Runs[0]; got.Status.State != "exception" || run.ReasonResolved != "canceled" {
			t.Errorf("cancelled: %+v", got.Status)
		}
	}
	_, err := asTask(t, server, c.Credentials).ReclaimTask(id, "0")
	refused(t, err, 409)
	for range 2 {
		got, err := root.RerunTask(id)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.State != "pending" || len(got.Status.Runs) != 2 {
			t.Errorf("rerun: %+v", got.Status)
		}
	}
	if pending, err := root.PendingTasks(taskQueue); err != nil || pending.PendingTasks != 1 {
		t.Errorf("pending: %+v, %v", pending, err)
	}
	if _, err := root.CancelTask(id); err != nil {
		t.Fatal(err)
	}
	if pending, err := root.PendingTasks(taskQueue); err != nil || pending.PendingTasks != 0 {
		t.Errorf("pending after cancelling: %+v, %v", pending, err)
	}
	blocked := create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.Dependencies = []string{id} })
	got, err := root.ScheduleTask(blocked)
	if err != nil || got.Status.State != "pending" {
		t.Errorf("scheduled: %+v, %v", got, err)
	}
}

func TestDependencies(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	good, bad := create(t, root, nil), create(t, root, nil)
	needsGood := create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.Dependencies = []string{good} })
	needsBoth := create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.Dependencies = []string{good, bad} })
	needsEnd := create(t, root, func(d *tcqueue.TaskDefinitionRequest) {
		d.Dependencies, d.Requires = []string{good, bad}, "all-resolved"
	})
	for _, c := range claim(t, root, 32) {
		var err error
		if c.Status.TaskID == good {
			_, err = asTask(t, server, c.Credentials).ReportCompleted(good, "0")
		} else {
			_, err = asTask(t, server, c.Credentials).ReportFailed(bad, "0")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]string{needsGood: "pending", needsBoth: "unscheduled", needsEnd: "pending"} {
		if s := status(t, root, id); s.State != want {
			t.Errorf("%s is %s, want %s", id, s.State, want)
		}
	}
	late := create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.Dependencies = []string{good} })
	if s := status(t, root, late); s.State != "pending" {
		t.Errorf("a task whose dependencies were met before it came is %s", s.State)
	}
	list, err := root.ListDependentTasks(bad, "", "")
	if err != nil || len(list.Tasks) != 2 {
		t.Errorf("dependents: %+v, %v", list, err)
	}
}

func TestTaskGroups(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	first := create(t, root, nil)
	for range 4 {
		create(t, root, func(d *tcqueue.TaskDefinitionRequest) { d.TaskGroupID = first })
	}
	ids := map[string]bool{}
	for token, pages := "", 1; ; pages++ {
		list, err := root.ListTaskGroup(first, token, "2")
		if err != nil {
			t.Fatal(err)
		}
		for _, member := range list.Tasks {
			ids[member.Status.TaskID] = true
		}
		if token = list.ContinuationToken; token == "" {
			if pages != 3 {
				t.Errorf("listed in %d pages", pages)
			}
			break
		}
	}
	if len(ids) != 5 || !ids[first] {
		t.Errorf("listed %v", ids)
	}
	d := definition()
	d.TaskGroupID, d.SchedulerID = first, "other"
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, put(root, slugid.Nice(), raw), 409)
	_, err = root.ListTaskGroup(slugid.Nice(), "", "")
	refused(t, err, 404)
}
