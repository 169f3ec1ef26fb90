package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcworkermanager"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// startWorker starts Taskcluster's start-worker, which "make peers" builds, for
// the worker of a pool: it starts this program.
func (m *managed) startWorker(t *testing.T, provider, workerConfig map[string]any) *program {
	t.Helper()
	runner, err := filepath.Abs("../../.bin/peers/start-worker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(runner); err != nil {
		t.Fatalf("start-worker is missing: run `make peers` (%v)", err)
	}
	dir := t.TempDir()
	// The name tells the test binary that it is the worker.
	path := filepath.Join(dir, "dc-linux-worker")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	workerConfig["native"] = map[string]any{"dir": m.dir}
	config, err := json.Marshal(map[string]any{
		"provider": provider, "workerConfig": workerConfig, "getSecrets": false,
		"worker": map[string]string{"implementation": "generic-worker", "path": path, "configPath": filepath.Join(dir, "worker.json")},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "runner.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: exec.CommandContext(t.Context(), runner, file), stderr: &said{}}
	// What is in the environment is not the worker's.
	p.cmd.Env = append(os.Environ(), "TASKCLUSTER_CLIENT_ID=somebody", "TASKCLUSTER_ROOT_URL=https://tc.example.com")
	p.cmd.Stdout, p.cmd.Stderr = p.stderr, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// static is start-worker's configuration of the worker of a static provider.
func (m *managed) static() map[string]any {
	return map[string]any{
		"providerType": "static", "rootURL": m.server.RootURL(), "providerID": "static", "workerPoolID": m.pool,
		"workerGroup": "g", "workerID": "w", "staticSecret": staticSecret,
		"providerMetadata": map[string]any{"instance-type": "m5.runner", "region": "moon"},
	}
}

// says expects texts in what start-worker and the worker wrote.
func (p *program) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("nobody says %q:\n%s", want, p.stderr)
		}
	}
}

// runnerLife is how long credentials are good, in seconds: start-worker renews
// them 30 seconds before.
const runnerLife = "36"

// start-worker registers the worker, starts it with what the pool configures,
// and renews its credentials while a task runs. The worker reports errors
// through it, and stops when worker-manager wants that.
func TestStartWorker(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/runner", runnerLife, `{"genericWorker":{"config":{"worker":{"capacity":2}}}}`)
	p := m.startWorker(t, m.static(), map[string]any{"lifecycle": map[string]any{"askManager": "1s"}})

	// Two at once, as the pool has it.
	first := m.begin(t, "echo on $TASKCLUSTER_INSTANCE_TYPE; sleep 8", "6021.5")
	second := m.begin(t, "sleep 8", "6022.5")
	b.expectState(t, first, "completed completed")
	log, _ := b.artifact(t, task.RunID{Task: first}, backingLog)
	if want := "on m5.runner\n"; !strings.Contains(log.content, want) {
		t.Errorf("the task's log lacks %q:\n%s", want, log.content)
	}
	if err := m.manager.RemoveWorker(m.pool, "g", "w"); err != nil {
		t.Fatal(err)
	}
	p.ended(t)
	b.expectState(t, second, "completed completed")
	p.says(t, "credentials are renewed", "worker-manager: worker is stopped", "worker stopped", "Host is not dynamically provisioned; exiting")
}

// start-worker cannot renew the credentials, and has the worker stop: that is
// reported within a second, and the worker ends.
func TestStartWorkerStopsGracefully(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/runner-stops", runnerLife, `{}`)
	p := m.startWorker(t, m.static(), map[string]any{})
	id := m.begin(t, "sleep 3600", "6023.5")
	// Somebody else registers as the worker, so that its secret is refused.
	_, err := m.manager.RegisterWorker(&tcworkermanager.RegisterWorkerRequest{
		WorkerPoolID: m.pool, ProviderID: "static", WorkerGroup: "g", WorkerID: "w",
		WorkerIdentityProof: json.RawMessage(`{"staticSecret":"` + staticSecret + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.expectState(t, id, "exception worker-shutdown")
	p.ended(t)
	expectNoProcess(t, "6023.5")
	p.says(t, "stopping worker", "worker-runner: terminate", "worker stopped", "Host is not dynamically provisioned; exiting")
}

// What keeps the worker from working is reported through start-worker.
func TestStartWorkerReportsErrors(t *testing.T) {
	t.Parallel()
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	m := newManaged(t, b, "proj-test/runner-fails", "3600", `{"genericWorker":{"config":{"engine":"docker","docker":{"host":"unix:///nowhere.sock"}}}}`)
	p := m.startWorker(t, m.static(), map[string]any{})
	if err := p.end(t); err == nil {
		t.Error("start-worker exits with 0")
	}
	if got := m.errors(t); !strings.HasPrefix(got, "startup-error: docker") {
		t.Errorf("reported %q; start-worker and the worker say:\n%s", got, p.stderr)
	}
}

func TestConfigurationByStartWorker(t *testing.T) {
	for _, tt := range []struct{ name, theirs, want string }{
		{
			"all that there is",
			`{"rootURL":"https://tc.example.com","clientId":"c","accessToken":"t","certificate":"{}","provisionerId":"proj","workerType":"linux",
			"workerGroup":"g","workerId":"w","publicIP":"1.2.3.4","privateIP":"10.0.0.1","instanceType":"m5","instanceID":"i-1",
			"region":"r","availabilityZone":"r-a","workerTypeMetadata":{"x":1},
			"worker":{"capacity":3,"pool":"theirs/alone"},"engine":"docker"}`,
			`{"rootURL":"https://tc.example.com","credentials":{"clientID":"c","accessToken":"t","certificate":"{}"},
			"worker":{"capacity":3,"pool":"proj/linux","group":"g","id":"w","publicIP":"1.2.3.4","instanceType":"m5","location":"{\"availabilityZone\":\"r-a\",\"region\":\"r\"}"},
			"engine":"docker"}`,
		},
		{
			"as little as there can be",
			`{"rootURL":"u","clientId":"c","accessToken":"t","provisionerId":"p","workerType":"t","workerGroup":"g","workerId":"w","workerTypeMetadata":{}}`,
			`{"rootURL":"u","credentials":{"clientID":"c","accessToken":"t"},"worker":{"pool":"p/t","group":"g","id":"w"}}`,
		},
		{"nonsense", `{"provisionerId":3,"worker":4,"credentials":[]}`, `{"worker":{"pool":"/"},"credentials":[]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var theirs, want map[string]any
			for raw, to := range map[string]*map[string]any{tt.theirs: &theirs, tt.want: &want} {
				if err := json.Unmarshal([]byte(raw), to); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, ofStartWorker(theirs)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzDocuments has start-worker and a pool configure anything: a worker takes
// it, or says what is wrong.
func FuzzDocuments(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"worker":{"capacity":3},"provisionerId":"a","workerType":"b"}`, `{"worker":{"capacity":1e9}}`, `{"clientId":{"a":[null]}}`,
		`{"lifecycle":{"maxIdle":"5m","atEnd":"reboot"}}`, `{"docker":{"registries":[{"host":"h"}]}}`, `{"a\u2028\ud800":"\u0000"}`, `[]`,
	} {
		f.Add([]byte(seed), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, theirs, pool []byte) {
		var content, settings map[string]any
		if json.Unmarshal(theirs, &content) != nil || json.Unmarshal(pool, &settings) != nil {
			return
		}
		from := setting.Sources{Documents: []setting.Document{{Name: "theirs", Content: ofStartWorker(content)}}}
		l, err := loadPool(from, []setting.Document{{Name: "pool", Content: settings}})
		if err != nil {
			return
		}
		if l.Worker.Capacity < 1 || l.Worker.Capacity > 250 || l.Lifecycle.MaxIdle < 0 {
			t.Errorf("configuration is %+v", l.config)
		}
		for path, value := range l.values {
			if value.Origin == "pool" && slices.Contains(ofTheMachine, path) {
				t.Errorf("the pool configures %s", path)
			}
		}
	})
}
