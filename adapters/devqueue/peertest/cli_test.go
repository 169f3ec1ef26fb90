package peertest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

func TestCommandLineClient(t *testing.T) {
	t.Parallel()
	d := deploy(t, devqueue.Config{})
	cli := peer(t, "taskcluster")
	id := d.create(t, shell("true", nil))
	run := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(d.run(t, 0, "", cli, args...))
	}
	if got := run("task", "name", id); got != "a task" {
		t.Errorf("name %q", got)
	}
	if got := run("task", "group", id); got != id {
		t.Errorf("group %q, want %q", got, id)
	}
	var definition struct{ TaskQueueID string }
	if err := json.Unmarshal([]byte(run("task", "def", id)), &definition); err != nil || definition.TaskQueueID != taskQueue {
		t.Errorf("definition %+v, %v", definition, err)
	}
	if got := run("task", "status", id); !strings.HasPrefix(got, "pending") {
		t.Errorf("status %q", got)
	}
	if got := run("task", "complete", id); !strings.HasPrefix(got, "completed") {
		t.Errorf("complete: %q", got)
	}
	if got := run("task", "rerun", "--force", id); !strings.HasPrefix(got, "pending") {
		t.Errorf("rerun: %q", got)
	}
	if got := run("group", "status", id); !strings.Contains(got, "pending") {
		t.Errorf("status of the group: %q", got)
	}
	if got := run("group", "list", "--all", id); !strings.Contains(got, id) {
		t.Errorf("list of the group: %q", got)
	}
	run("group", "cancel", "--force", id)
	if got := run("task", "status", id); !strings.HasPrefix(got, "exception") {
		t.Errorf("status after cancelling the group: %q", got)
	}
	if got := run("api", "auth", "currentScopes"); !slices.Contains(strings.Split(got, `"`), "*") {
		t.Errorf("scopes of root: %s", got)
	}
	if got := run("api", "queue", "pendingTasks", taskQueue); !strings.Contains(got, `"pendingTasks":0`) && !strings.Contains(got, `"pendingTasks": 0`) {
		t.Errorf("pending tasks: %s", got)
	}
	// The client's own signature of a URL, and a call that is refused.
	d.run(t, 1, "", cli, "api", "queue", "task", "no-slugid")
}
