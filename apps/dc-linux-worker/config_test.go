package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

var update = flag.Bool("update", false, "write the table of the manual instead of comparing with it")

// The manual has what the program knows of its settings.
func TestManual(t *testing.T) {
	const file, begin, end = "../../docs/operators/configuration.md", "<!-- settings -->\n", "<!-- end of settings -->\n"
	manual, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(manual), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %q or %q", file, begin, end)
	}
	want := head + begin + settings().Markdown() + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(manual)); diff != "" {
		t.Errorf("the manual's table is out of date; run this test with -update (-want +manual):\n%s", diff)
	}
}

func load(t *testing.T, content string, environ ...string) (loaded, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "worker.yml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(file, environ, "", nil)
}

func TestLoadConfig(t *testing.T) {
	content := `
rootURL: https://tc.example.com
credentials: {clientID: me, accessToken: secret, certificate: '{"a": 1}'}
provider: {type: static, id: s, secret: a_secret_of_44_characters_as_is_due_00000000}
worker: {pool: a/b, group: g, id: w, capacity: 3, maxTaskRunTime: 90m, maxLog: 0, location: '{}', instanceType: m5}
lifecycle: {maxIdle: 5m, maxTasks: 7, maxLife: 48h, minDisk: 1GiB, atEnd: powerOff, preemption: google}
state: /srv/state
native:
  dir: /srv/tasks
  limits: {memory: 1.5GiB, cpu: 2, pids: 100, sharedMemory: 1048576}
  grace: 3s
  noNewPrivileges: true
docker:
  pull: missing
  preload: [debian:12, busybox]
  registries:
    - {host: r:5000, username: u, password: p, public: true}
caches: {table: /srv/caches.json}
exitStatus: {enabled: false}
artifacts: {storageType: object}
log: {format: text, level: debug}
`
	got, err := load(t, content, "DC_LINUX_WORKER_WORKER_CAPACITY=5", "DC_LINUX_WORKER_NATIVE_LIMITS_CPU=0.5",
		"DC_LINUX_WORKER_ARTIFACTS_ENABLED=false", "DC_LINUX_WORKER_NATIVE_LIMITS_SHAREDMEMORY=2MiB",
		"TASKCLUSTER_CLIENT_ID=you", "UNRELATED=1")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		RootURL:     "https://tc.example.com",
		Credentials: credentialsConfig{ClientID: "you", AccessToken: "secret", Certificate: `{"a": 1}`},
		Provider:    providerConfig{Type: "static", ID: "s", Secret: staticSecret},
		Lifecycle: lifecycleConfig{
			Lifecycle: section.Lifecycle{MaxIdle: 5 * time.Minute, MaxTasks: 7, MaxLife: 48 * time.Hour, MinDisk: 1 << 30, AskManager: time.Minute, DrainInterval: time.Second},
			AtEnd:     "powerOff", Preemption: "google",
		},
		Worker: workerConfig{
			Pool: "a/b", Group: "g", ID: "w", Location: "{}", InstanceType: "m5",
			Worker: section.Worker{
				Capacity: 5, MaxTaskRunTime: 90 * time.Minute, PollInterval: 30 * time.Second,
				ShutdownGrace: 30 * time.Second, StopLead: 5 * time.Minute, TaskGrace: 30 * time.Second,
			},
		},
		Linux: section.Linux{
			State:  "/srv/state",
			Engine: "native",
			Native: section.Native{
				Dir: "/srv/tasks", Grace: 3 * time.Second, NoNewPrivileges: true,
				Limits: section.NativeLimits{Memory: 3 << 29, CPU: 0.5, PIDs: 100, SharedMemory: 2 << 20},
			},
			Env: section.Required{Enabled: true}, MaxRunTime: section.Required{Enabled: true}, TaskLog: section.Required{Enabled: true},
			Docker: section.Docker{
				Egress: "internet", Addresses: "10.213.0.0/16", Pull: "missing", MinFree: 5 << 30,
				Limits:     section.DockerLimits{PIDs: 4096},
				Preload:    []string{"debian:12", "busybox"},
				Registries: []section.Registry{{Host: "r:5000", Username: "u", Password: "p", Public: true}},
			},
			Caches:     section.Caches{Enabled: true, Table: "/srv/caches.json"},
			ExitStatus: section.Plugin{Enabled: false},
			Artifacts:  section.Artifacts{Enabled: false, StorageType: "object"},
			Log:        section.Log{Format: "text", Level: "debug"},
		},
	}
	if diff := cmp.Diff(want, got.config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestLoadConfigWithoutFile(t *testing.T) {
	l, err := loadConfig("", nil, "", map[string]string{"worker.pool": "local/x", "log.level": "warn"})
	if err != nil {
		t.Fatal(err)
	}
	want := workerConfig{Pool: "local/x", ID: hostID(), Worker: section.Worker{
		Capacity: 1, MaxTaskRunTime: 24 * time.Hour, MaxLog: 4 << 30, PollInterval: 30 * time.Second,
		ShutdownGrace: 30 * time.Second, StopLead: 5 * time.Minute, TaskGrace: 30 * time.Second,
	}}
	if diff := cmp.Diff(want, l.Worker); diff != "" {
		t.Errorf("worker (-want +got):\n%s", diff)
	}
	if got, want := l.Log.Level, "warn"; got != want {
		t.Errorf("log level is %s, want %s", got, want)
	}
}

// An empty section says nothing, and hides nothing.
func TestEmptySection(t *testing.T) {
	l, err := load(t, "worker:\nnative:\n  limits:\n", "DC_LINUX_WORKER_WORKER_CAPACITY=7")
	if err != nil {
		t.Fatal(err)
	}
	if l.Worker.Capacity != 7 || l.Worker.PollInterval != 30*time.Second || l.Native.Limits.PIDs != 4096 {
		t.Errorf("configuration is %+v", l.config)
	}
}

// What "config show" prints is a configuration of the same effect.
func TestShowIsConfiguration(t *testing.T) {
	first, err := load(t, "worker: {pool: a/b, id: 'true', location: '{\"a\": \"#b\"}'}\nnative: {limits: {memory: 64MiB, cpu: 0.1}}")
	if err != nil {
		t.Fatal(err)
	}
	second, err := load(t, settings().YAML(first.values))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, settings().YAML(first.values))
	}
	if diff := cmp.Diff(first.config, second.config, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration, and as shown (-first +second):\n%s", diff)
	}
}

// The JSON schema takes and refuses what the program does.
func TestSchemaAgrees(t *testing.T) {
	schema, err := settings().JSONSchema("test")
	if err != nil {
		t.Fatal(err)
	}
	checker, err := jsonschema.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{
		`{}`,
		`{"worker": {"capacity": 250, "maxTaskRunTime": "1h30m", "pool": "a/b", "id": "x"}, "native": {"limits": {"memory": "4GiB", "cpu": 1.5}}}`,
		`{"native": {"limits": {"memory": 67108864, "cpu": 2}}, "env": {"enabled": true}}`,
		`{"worker": {"capacity": 251}}`,
		`{"worker": {"capacity": "3"}}`,
		`{"worker": {"capcity": 3}}`,
		`{"worker": {"pool": "ab"}}`,
		`{"worker": {"maxTaskRunTime": 3}}`,
		`{"worker": {"maxTaskRunTime": "3"}}`,
		`{"worker": []}`,
		`{"native": {"limits": {"memory": "4GiBi"}}}`,
		`{"env": {"enabled": false}}`,
		`{"engine": "docker"}`,
		`{"rootURL": "tc.example.com"}`,
		`{"log": {"level": "loud"}}`,
	} {
		violations, err := checker.Check([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		_, refused := load(t, doc)
		if (len(violations) > 0) != (refused != nil) {
			t.Errorf("%s: schema says %v, program says %v", doc, violations, refused)
		}
	}
}

// Secrets are in no message, whatever is wrong.
func TestSecretsAreNotTold(t *testing.T) {
	const secret = "hunter2"
	for _, content := range []string{
		"credentials: {accessToken: [" + secret + "]}",
		"credentials: {accessToken: {a: " + secret + "}}",
		"credentials: {accessToken: true, certificate: 3}\nworker: {capacity: 0}",
		"credentials: {accessToken: " + secret + "}\nworker: {capacity: 0}",
		"credentials: {accessToken: " + secret + ", accessToken: " + secret + "}",
		"credentials: {acessToken: " + secret + "}",
		"credentials:\n  accessToken: " + secret + "\n bad: [",
		"credentials: " + secret + "\nworker: {capacity: 0}",
	} {
		_, err := load(t, content)
		if err == nil {
			t.Errorf("no error for:\n%s", content)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("secret is told: %v", err)
		}
	}
	l, err := load(t, "credentials: {accessToken: "+secret+", certificate: "+secret+"}")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(settings().YAML(l.values), secret) {
		t.Errorf("secret is shown:\n%s", settings().YAML(l.values))
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add("worker: {capacity: 3}")
	f.Add("worker: &a {capacity: *a}")
	f.Add("native: {limits: {memory: 4GiB}}\n---\n")
	f.Add("<<: {engine: native}")
	f.Add("? [a]\n: b")
	f.Add("worker: {maxTaskRunTime: 1e9h}\nnative: {limits: {cpu: .nan}}")
	f.Fuzz(func(t *testing.T, content string) {
		// Whatever the check lets pass can be read.
		_, err := load(t, content)
		if _, ok := err.(setting.Problems); err != nil && !ok { //nolint:errorlint // it is not wrapped
			t.Errorf("error is not about the file: %v", err)
		}
	})
}
