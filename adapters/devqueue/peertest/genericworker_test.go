package peertest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/slugid-go/slugid"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// workerConfig returns what generic-worker needs to know besides where it
// works and as whom. It exits after so many tasks.
func (d deployment) workerConfig(t *testing.T, tasks int) map[string]any {
	t.Helper()
	key := filepath.Join(d.dir, "ed25519.key")
	d.run(t, 0, "", peer(t, "generic-worker"), "new-ed25519-keypair", "--file", key)
	work := filepath.Join(d.dir, "tasks")
	if err := os.MkdirAll(work, 0o700); err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"cachesDir": filepath.Join(d.dir, "caches"), "downloadsDir": filepath.Join(d.dir, "downloads"), "tasksDir": work,
		"ed25519SigningKeyLocation": key, "livelogExecutable": peer(t, "livelog"), "livelogPortBase": freePorts(t),
		"numberOfTasksToRun": tasks, "idleTimeoutSecs": 60, "requiredDiskSpaceMegabytes": 1, "sentryProject": "",
		"shutdownMachineOnInternalError": false, "shutdownMachineOnIdle": false, "disableReboots": true,
		"cleanUpTaskDirs": true, "publicIP": "127.0.0.1",
	}
}

// genericWorker starts generic-worker for so many tasks and returns how to
// wait for its end.
func (d deployment) genericWorker(t *testing.T, tasks int) (wait func() error) {
	t.Helper()
	config := d.workerConfig(t, tasks)
	root := d.Credentials()
	config["rootURL"], config["clientId"], config["accessToken"] = d.RootURL(), root.ClientID, root.AccessToken
	config["provisionerId"], config["workerType"], _ = strings.Cut(taskQueue, "/")
	config["workerGroup"], config["workerId"] = "here", "generic-worker"
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return d.start(t, peer(t, "generic-worker"), "run", "--config", d.write(t, "generic-worker.json", raw))
}

// shell returns a payload that runs a script.
func shell(script string, more map[string]any) map[string]any {
	payload := map[string]any{"command": [][]string{{"/bin/sh", "-c", script}}, "maxRunTime": 300}
	maps.Copy(payload, more)
	return payload
}

func TestGenericWorker(t *testing.T) {
	t.Parallel()
	// Generic-worker reclaims three minutes before its claim ends, which is when
	// it notices that a task was cancelled, but not within 30 seconds.
	d := deploy(t, devqueue.Config{ClaimTimeout: 3*time.Minute + 32*time.Second})
	cli := peer(t, "taskcluster")
	good := d.create(t, shell("echo hello from the task; mkdir out; echo content > out/file.txt; sleep 4", map[string]any{
		"artifacts": []map[string]any{{"type": "file", "path": "out/file.txt", "name": "public/file.txt"}, {"type": "directory", "path": "out", "name": "public/out"}},
	}))
	bad := d.create(t, shell("exit 3", nil))
	malformed := d.create(t, map[string]any{"colour": "green"})
	endless := d.create(t, shell("sleep 3600", nil))
	wait := d.genericWorker(t, 4)

	for id, want := range map[string]string{good: "completed", bad: "failed", malformed: "exception"} {
		if got := d.reach(t, id, "completed", "failed", "exception"); !strings.HasPrefix(got, want) {
			t.Errorf("task is %q, want %s", got, want)
		}
	}
	if log := d.run(t, 0, "", cli, "task", "log", good); !strings.Contains(log, "hello from the task") {
		t.Errorf("log of the task:\n%s", log)
	}
	listed := strings.Fields(d.run(t, 0, "", cli, "task", "artifacts", good))
	want := []string{"public/file.txt", "public/logs/live.log", "public/logs/live_backing.log", "public/out/file.txt"}
	if strings.Join(listed, "\n") != strings.Join(want, "\n") {
		t.Errorf("artifacts %q, want %q", listed, want)
	}
	file := filepath.Join(d.dir, "download")
	d.run(t, 0, "", cli, "download", "artifact", good, "public/file.txt", file)
	if content, err := os.ReadFile(file); err != nil || string(content) != "content\n" {
		t.Errorf("downloaded %q, %v", content, err)
	}

	d.reach(t, endless, "running")
	d.run(t, 0, "", cli, "task", "cancel", endless)
	if err := wait(); err != nil {
		t.Errorf("generic-worker: %v", err)
	}
	if got := d.state(t, endless); !strings.HasPrefix(got, "exception") || !strings.Contains(got, "canceled") {
		t.Errorf("the cancelled task is %q", got)
	}
}

func TestStartWorkerStandalone(t *testing.T) {
	t.Parallel()
	d := deploy(t, devqueue.Config{})
	root := d.Credentials()
	d.startWorker(t, map[string]any{
		"providerType": "standalone", "rootURL": d.RootURL(), "clientID": root.ClientID, "accessToken": root.AccessToken,
		"workerPoolID": taskQueue, "workerGroup": "here", "workerID": "standalone",
	})
}

func TestStartWorkerStatic(t *testing.T) {
	t.Parallel()
	d := deploy(t, devqueue.Config{})
	cli := peer(t, "taskcluster")
	secret := slugid.Nice() + slugid.Nice()
	d.run(t, 0, `{"providerId": "static", "description": "d", "owner": "me@example.com", "emailOnError": false, "config": {"workerConfig": {}}}`,
		cli, "api", "workerManager", "createWorkerPool", taskQueue)
	expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	d.run(t, 0, `{"expires": "`+expires+`", "capacity": 1, "providerInfo": {"staticSecret": "`+secret+`"}}`,
		cli, "api", "workerManager", "createWorker", taskQueue, "here", "static")
	// The worker's own credentials let it claim and little more; its pool's role
	// lets it do what it needs besides.
	d.run(t, 0, `{"description": "d", "scopes": ["queue:create-artifact:*"]}`, cli, "api", "auth", "createRole", "worker-pool:"+taskQueue)
	d.run(t, 0, `{"secret": {"config": {}, "files": []}, "expires": "`+expires+`"}`, cli, "api", "secrets", "set", "worker-pool:"+taskQueue)
	d.startWorker(t, map[string]any{
		"providerType": "static", "rootURL": d.RootURL(), "providerID": "static", "workerPoolID": taskQueue,
		"workerGroup": "here", "workerID": "static", "staticSecret": secret,
	})
}

// startWorker has start-worker start generic-worker, and that run a task.
func (d deployment) startWorker(t *testing.T, provider map[string]any) {
	t.Helper()
	id := d.create(t, shell("echo started", nil))
	config := d.workerConfig(t, 1)
	raw, err := json.Marshal(map[string]any{
		"provider": provider,
		"worker": map[string]string{
			"implementation": "generic-worker", "path": peer(t, "generic-worker"), "configPath": filepath.Join(d.dir, "generic-worker.json"),
		},
		"workerConfig": config,
	})
	if err != nil {
		t.Fatal(err)
	}
	wait := d.start(t, peer(t, "start-worker"), d.write(t, "runner.yml", raw))
	if got := d.reach(t, id, "completed", "failed", "exception"); !strings.HasPrefix(got, "completed") {
		t.Errorf("task is %q", got)
	}
	if err := wait(); err != nil {
		t.Errorf("start-worker: %v", err)
	}
}
