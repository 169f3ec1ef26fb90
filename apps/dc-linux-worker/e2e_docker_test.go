package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// inDocker has a worker with the docker engine, and the image of tests.
func inDocker(t *testing.T) *bench {
	t.Helper()
	return newBench(t, `
engine: docker
docker: {host: '`+daemon.Host()+`', pull: missing, allow: {ptrace: true, hostSharedMemory: true}}
fetch: {loopback: true}
worker: {capacity: 2, instanceType: m5.large, location: '{"cloud":"aws"}'}
`, devqueue.Config{})
}

// imageBuilder is a task that makes an image as docker save writes it, and
// publishes it for everybody and for those with the right to it.
const imageBuilder = `
routes: [index.tests.images.busybox.latest]
payload:
  image: ` + dockertest.Image + `
  maxRunTime: 60
  command:
    - sh
    - -exc
    - >-
      mkdir /out && cd /out &&
      tar -C / -cf layer.tar bin etc tmp &&
      d=$(sha256sum layer.tar | cut -d' ' -f1) &&
      echo '{"architecture":"amd64","os":"linux","config":{"Env":["MADE=by-a-task"],"WorkingDir":"/etc"},"rootfs":{"type":"layers","diff_ids":["sha256:'$d'"]}}' > config.json &&
      echo '[{"Config":"config.json","RepoTags":["` + dockertest.Image + `"],"Layers":["layer.tar"]}]' > manifest.json &&
      tar -cf image.tar config.json manifest.json layer.tar && gzip image.tar
  artifacts:
    public/image.tar.gz: {type: file, path: /out/image.tar.gz}
    private/image.tar.gz: {type: file, path: /out/image.tar.gz}
`

// TestTasksInContainers runs tasks from the queue to their resolution, in
// containers of a daemon of its own.
func TestTasksInContainers(t *testing.T) {
	withDocker(t, testTasksInContainers)
}

func testTasksInContainers(t *testing.T) {
	t.Helper()
	b := inDocker(t)
	t.Run("of docker-worker", func(t *testing.T) { b.tryAll(t, dockerWorkerTasks) })
	t.Run("images", func(t *testing.T) {
		builder := b.create(t, imageBuilder)
		if s := b.await(t, builder); s.State != "completed" {
			log, _ := b.artifact(t, task.RunID{Task: builder}, "public/logs/live_backing.log")
			t.Fatalf("the task that makes an image is %s:\n%s", s.State, log.content)
		}
		archive, _ := b.artifact(t, task.RunID{Task: builder}, "public/image.tar.gz")
		b.tryAll(t, tasksOfImages(t, builder, archive.content))
	})
}

var dockerWorkerTasks = []scenario{
	{
		name: "with an environment, a terminal, a log, artifacts and a cache",
		task: `
scopes: [docker-worker:cache:mine]
payload:
  image: ` + dockertest.Image + `
  maxRunTime: 60
  env: {GREETING: Hello}
  log: public/logs/mine.log
  cache: {mine: /cache}
  command:
    - sh
    - -ec
    - test -t 1; test -t 2; echo $GREETING $RUN_ID; mkdir -p /out/sub; echo a > /out/a.txt; env | sort > /out/sub/env.txt; echo run >> /cache/runs
  artifacts:
    public/file.txt: {type: file, path: /out/a.txt}
    public/dir: {type: directory, path: /out}
    public/volume: {type: volume, path: /out/sub}
    public/missing: {type: file, path: /no/such/file}
`,
		state: "completed", reason: "completed",
		log: []string{"Executing command 0", "Hello 0\r\n", "Result: SUCCEEDED"},
		artifacts: map[string]*stored{
			"public/file.txt": {content: "a\n"}, "public/dir/a.txt": {content: "a\n"}, "public/dir/sub/env.txt": {}, "public/volume/env.txt": {},
			"public/missing": {storage: "error"}, "public/logs/mine.log": {}, "public/logs/live.log": nil,
		},
		check: func(t *testing.T, b *bench, id task.RunID, _ string) {
			t.Helper()
			env, _ := b.artifact(t, id, "public/volume/env.txt")
			for _, want := range []string{
				"TASK_ID=" + string(id.Task), "RUN_ID=0", "TASK_GROUP_ID=", "TASKCLUSTER_ROOT_URL=" + b.server.RootURL(),
				"TASKCLUSTER_INSTANCE_TYPE=m5.large", `TASKCLUSTER_WORKER_LOCATION={"cloud":"aws"}`, "GREETING=Hello",
			} {
				if !strings.Contains(env.content, want) {
					t.Errorf("the environment lacks %s:\n%s", want, env.content)
				}
			}
		},
	},
	{
		name:  "with a cache that it has no scope for",
		task:  "scopes: [docker-worker:cache:other]\npayload: {image: '" + dockertest.Image + "', maxRunTime: 60, cache: {mine: /cache}, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{"docker-worker:cache:mine"},
	},
	{
		name:  "with a capability that it has a scope for",
		task:  "scopes: ['docker-worker:capability:device:hostSharedMemory:" + localPool + "']\npayload: {image: '" + dockertest.Image + "', maxRunTime: 60, capabilities: {devices: {hostSharedMemory: true}}, command: ['true']}",
		state: "completed", reason: "completed",
	},
	{
		name:  "with a capability that it has no scope for",
		task:  "payload: {image: '" + dockertest.Image + "', maxRunTime: 60, capabilities: {devices: {hostSharedMemory: true}}, command: ['true']}",
		state: "exception", reason: "malformed-payload",
		log: []string{"docker-worker:capability:device:hostSharedMemory", "docker-worker:capability:device:hostSharedMemory:" + localPool},
	},
	{
		name:  "with a capability that the pool does not allow",
		task:  "scopes: [docker-worker:capability:privileged]\npayload: {image: '" + dockertest.Image + "', maxRunTime: 60, capabilities: {privileged: true}, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{"privileged is not available on worker pool " + localPool},
	},
	{
		name:  "with a feature that it has a scope for",
		task:  "scopes: [docker-worker:feature:allowPtrace]\npayload: {image: '" + dockertest.Image + "', maxRunTime: 60, features: {allowPtrace: true}, command: ['true']}",
		state: "completed", reason: "completed",
	},
	{
		name:  "with a feature that it has no scope for",
		task:  "payload: {image: '" + dockertest.Image + "', maxRunTime: 60, features: {allowPtrace: true}, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{"docker-worker:feature:allowPtrace"},
	},
	{
		name:  "with a feature that is no more",
		task:  "payload: {image: '" + dockertest.Image + "', maxRunTime: 60, features: {dind: true}, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{"features.dind"},
	},
	{
		name:  "with features that no plugin offers",
		task:  "payload: {image: '" + dockertest.Image + "', maxRunTime: 60, features: {interactive: true, taskclusterProxy: true, chainOfTrust: true}, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{"features.chainOfTrust", "features.interactive", "features.taskclusterProxy"},
	},
	{
		name:  "that exits with what is to be repeated",
		task:  "retries: 0\npayload: {image: '" + dockertest.Image + "', maxRunTime: 60, onExitStatus: {retry: [7]}, command: [sh, -c, exit 7]}",
		state: "exception", reason: "intermittent-task",
	},
	{
		name:  "that takes longer than it may",
		task:  "payload: {image: '" + dockertest.Image + "', maxRunTime: 1, command: [sleep, '1000']}",
		state: "failed", reason: "failed", log: []string{"max run time exceeded"},
	},
	{
		name: "of the worker's own form, with what its user may not read",
		task: `
payload:
  image: ` + dockertest.Image + `
  user: worker
  workdir: /tmp
  maxRunTime: 60
  command: [[sh, -c, 'echo secret > file; echo mine > other'], [chmod, '0', file]]
  artifacts: [{type: file, path: file, name: public/file, optional: true}, {type: file, path: other, name: public/other}]
`,
		state: "completed", reason: "completed", log: []string{"Executing command 1", "file-not-readable-on-worker"},
		artifacts: map[string]*stored{"public/file": {storage: "error"}, "public/other": {content: "mine\n"}},
	},
	{
		name:  "with an image that is none",
		task:  "payload: {image: 'No Image', maxRunTime: 60, command: ['true']}",
		state: "exception", reason: "malformed-payload", log: []string{`"No Image" is not the name of an image`},
	},
}

// tasksOfImages are tasks whose images come from an archive, in each way.
func tasksOfImages(t *testing.T, builder task.ID, archive string) []scenario {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(archive)) }))
	t.Cleanup(server.Close)
	sum := sha256.Sum256([]byte(archive))
	hash := hex.EncodeToString(sum[:])
	payload := func(image string) string {
		return "payload: {image: " + image + ", maxRunTime: 60, command: [sh, -c, 'echo $MADE in $(pwd)']}\n"
	}
	seen := []string{"by-a-task in /etc"}
	completed := func(name, task string) scenario {
		return scenario{name: name, task: task, state: "completed", reason: "completed", log: seen}
	}
	malformed := func(name, task, why string) scenario {
		return scenario{name: name, task: task, state: "exception", reason: "malformed-payload", log: []string{why}}
	}
	artifact := fmt.Sprintf("{type: task-image, taskId: %s, path: public/image.tar.gz}", builder)
	private := fmt.Sprintf("{type: task-image, taskId: %s, path: private/image.tar.gz}", builder)
	index := "{type: indexed-image, namespace: tests.images.busybox.latest, path: public/image.tar.gz}"
	own := func(image string) string {
		return "payload: {image: " + image + ", maxRunTime: 60, command: [[sh, -c, 'echo $MADE in $(pwd)']]}\n"
	}
	return []scenario{
		completed("an artifact", payload(artifact)),
		completed("the same, at once", payload(artifact)),
		completed("an artifact that the index leads to", payload(index)),
		completed("a private artifact", "scopes: ['queue:get-artifact:private/*']\n"+payload(private)),
		malformed("a private artifact without the right to it", payload(private), "queue:get-artifact:private/image.tar.gz"),
		malformed("a private artifact with another right", "scopes: ['queue:get-artifact:other/*']\n"+payload(private), "queue:get-artifact:private/image.tar.gz"),
		completed("a URL with a hash", own(fmt.Sprintf("{url: '%s/image.tar.gz', sha256: '%s'}", server.URL, hash))),
		malformed("an artifact that is not there", payload(fmt.Sprintf("{type: task-image, taskId: %s, path: public/other}", builder)), "has no artifact public/other"),
		malformed("a namespace that is not there", payload("{type: indexed-image, namespace: tests.other, path: public/image.tar.gz}"), "the index has no task under tests.other"),
		{
			name: "a URL with another hash", task: own(fmt.Sprintf("{url: '%s/image.tar.gz', sha256: '%s'}", server.URL, strings.Repeat("0", 64))),
			state: "failed", reason: "failed", log: []string{"is not what it should be"},
		},
	}
}
