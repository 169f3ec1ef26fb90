package env_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

func TestConformance(t *testing.T) {
	plugintest.Test(t, func(testing.TB) plugintest.Subject {
		return plugintest.Subject{
			Plugin:  env.New(env.Config{RootURL: "https://tc.example.com"}, telemetry.Off{}),
			Payload: `{"env": {"GOOS": "linux", "PATH": "/bin"}}`,
			Compile: jsonschema.Compile,
		}
	})
}

// traced is telemetry that is on.
type traced struct{ telemetry.Off }

func (traced) Parent(context.Context) string { return "00-trace-span-01" }

func TestEnvironment(t *testing.T) {
	everything := env.Config{
		RootURL: "https://tc.example.com", WorkerPool: "proj-test/linux", WorkerGroup: "us-east-1", WorkerType: "linux",
		InstanceType: "m5.large", Location: `{"cloud":"aws"}`, PublicIP: "192.0.2.1",
	}
	always := map[string]string{
		"TASK_ID": "fN1SbArXTPSVFNUvaOlinQ", "RUN_ID": "0", "TASK_GROUP_ID": "dSlITZ4yQgmvxxAi4A8fHQ",
		"TASKCLUSTER_ROOT_URL": "https://tc.example.com",
	}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(always)
		maps.Copy(all, more)
		return all
	}
	for _, tt := range []struct {
		name      string
		config    env.Config
		telemetry telemetry.Telemetry
		payload   string
		want      map[string]string
		warns     []string
	}{
		{"of a worker that knows little", env.Config{RootURL: "https://tc.example.com"}, telemetry.Off{}, `{}`, always, nil},
		{
			"of a worker that knows all", everything,
			traced{},
			`{}`,
			with(map[string]string{
				"TASKCLUSTER_WORKER_POOL": "proj-test/linux", "TASKCLUSTER_WORKER_GROUP": "us-east-1", "TASKCLUSTER_WORKER_TYPE": "linux",
				"TASKCLUSTER_INSTANCE_TYPE": "m5.large", "TASKCLUSTER_WORKER_LOCATION": `{"cloud":"aws"}`,
				"TASKCLUSTER_PUBLIC_IP": "192.0.2.1", "TRACEPARENT": "00-trace-span-01",
			}), nil,
		},
		{
			"of the task, with what it may set in place of the engine",
			env.Config{RootURL: "https://tc.example.com"},
			telemetry.Off{},
			`{"env": {"HOME": "/h", "PATH": "/p", "USER": "u", "EMPTY": "", "Ünïcode": "a=b\nc"}}`,
			with(map[string]string{"HOME": "/h", "PATH": "/p", "USER": "u", "EMPTY": "", "Ünïcode": "a=b\nc"}), nil,
		},
		{
			"of the task, without what is the worker's",
			env.Config{RootURL: "https://tc.example.com"},
			traced{},
			`{"env": {"TASK_ID": "secret", "RUN_ID": "secret", "TASK_GROUP_ID": "secret", "TASK_WORKDIR": "secret", "TASKCLUSTER_ROOT_URL": "secret", "TRACEPARENT": "secret"}}`,
			with(map[string]string{"TRACEPARENT": "00-trace-span-01"}),
			[]string{"RUN_ID", "TASKCLUSTER_ROOT_URL", "TASK_GROUP_ID", "TASK_ID", "TASK_WORKDIR", "TRACEPARENT"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plugintest.Through(t.Context(), env.New(tt.config, tt.telemetry), plugintest.Setup{Payload: tt.payload})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d.Env()); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
			var warns []string
			for line := range strings.Lines(d.Log()) {
				_, rest, _ := strings.Cut(line, "] env: ")
				name, _, _ := strings.Cut(rest, " ")
				warns = append(warns, name)
			}
			if diff := cmp.Diff(tt.warns, warns); diff != "" {
				t.Errorf("names in the log (-want +got):\n%s", diff)
			}
			if strings.Contains(d.Log(), "secret") {
				t.Errorf("the log tells values:\n%s", d.Log())
			}
		})
	}
}

func TestImpossibleVariables(t *testing.T) {
	for _, tt := range []struct{ payload, want string }{
		{`{"env": {"": "x"}}`, `env: "" cannot be the name of an environment variable`},
		{`{"env": {"A=B": "x"}}`, `env: "A=B" cannot be the name of an environment variable`},
		{`{"env": {"A\u0000": "x"}}`, `env: "A\x00" cannot be the name of an environment variable`},
		{`{"env": {"A": "x\u0000"}}`, `env: the value of A holds a NUL character`},
	} {
		_, err := plugintest.Start(env.New(env.Config{}, telemetry.Off{}), plugintest.Setup{Payload: tt.payload})
		f := fault.Classify(err)
		if f == nil || f.Kind != fault.Malformed || f.Message != tt.want {
			t.Errorf("%s: %v, want a malformed payload: %s", tt.payload, err, tt.want)
		}
	}
}

func TestEngineThatRefuses(t *testing.T) {
	d, err := plugintest.Start(env.New(env.Config{}, telemetry.Off{}), plugintest.Setup{Payload: `{"env": {"A": "b"}}`})
	if err != nil {
		t.Fatal(err)
	}
	d.Builder.Err = fault.Malformedf("no such name")
	if err := d.BuildSandbox(t.Context()); !errors.Is(err, d.Builder.Err) {
		t.Errorf("error %v, want that of the engine", err)
	}
}

// Whatever the payload, the worker's variables are what the worker says.
func FuzzPayload(f *testing.F) {
	for _, payload := range []string{`{}`, `{"env": {"TASK_ID": "x"}}`, `{"env": {"": ""}}`, `{"env": {"A": "\u0000"}}`, `{"env": null}`} {
		f.Add([]byte(payload))
	}
	p := env.New(env.Config{RootURL: "https://tc.example.com"}, telemetry.Off{})
	checker, err := jsonschema.Compile(p.PayloadSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if vs, err := checker.Check(payload); err != nil || len(vs) > 0 || !json.Valid(payload) {
			return
		}
		d, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: string(payload)})
		if err != nil {
			if f := fault.Classify(err); f.Kind != fault.Malformed {
				t.Errorf("error %v is not the task's", err)
			}
			return
		}
		got := d.Env()
		if got["TASK_ID"] != string(plugintest.Run.Task) || got["RUN_ID"] != "0" || got["TASKCLUSTER_ROOT_URL"] != "https://tc.example.com" {
			t.Errorf("the worker's variables are %q", got)
		}
		if _, ok := got["TASK_WORKDIR"]; ok {
			t.Error("TASK_WORKDIR is not the engine's")
		}
		for name, value := range got {
			if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
				t.Errorf("%q=%q cannot be set", name, value)
			}
		}
	})
}
