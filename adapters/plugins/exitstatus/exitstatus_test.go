package exitstatus_test

import (
	"encoding/json"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/exitstatus"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Test(t, func(testing.TB) plugintest.Subject {
		return plugintest.Subject{
			Plugin:  exitstatus.New(exitstatus.Config{}),
			Payload: `{"onExitStatus": {"retry": [3]}}`,
			Compile: jsonschema.Compile,
		}
	})
}

func TestConformanceWithoutNeed(t *testing.T) {
	plugintest.Test(t, func(testing.TB) plugintest.Subject {
		return plugintest.Subject{Plugin: exitstatus.New(exitstatus.Config{}), Payload: `{}`, Compile: jsonschema.Compile}
	})
}

func TestRetry(t *testing.T) {
	const payload = `{"onExitStatus": {"retry": [3, 75.0, 1e2]}}`
	for _, tt := range []struct {
		name   string
		result engine.Result
		retry  bool
	}{
		{"success", engine.Result{Success: true}, false},
		{"a listed code", engine.Result{ExitCode: 3}, true},
		{"a code listed with a fraction of zero", engine.Result{ExitCode: 75}, true},
		{"a code listed with an exponent", engine.Result{ExitCode: 100}, true},
		{"a code that is not listed", engine.Result{ExitCode: 4}, false},
		{"a signal", engine.Result{ExitCode: -1, Signal: "killed"}, false},
		{"a listed code of what ran out of memory", engine.Result{ExitCode: 3, OOM: true}, true},
		{"a listed code of what the worker killed", engine.Result{ExitCode: 3, Killed: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plugintest.Through(t.Context(), exitstatus.New(exitstatus.Config{}), plugintest.Setup{Payload: payload, Result: tt.result})
			f := fault.Classify(err)
			if got := f != nil; got != tt.retry || got && f.Kind != fault.Intermittent {
				t.Errorf("error %v, want another run: %v", err, tt.retry)
			}
		})
	}
}

// Whatever the payload, success stays success.
func FuzzPayload(f *testing.F) {
	for _, payload := range []string{`{}`, `{"onExitStatus": {}}`, `{"onExitStatus": {"retry": [1, 1.0, 1e300]}}`} {
		f.Add([]byte(payload), 1)
	}
	p := exitstatus.New(exitstatus.Config{})
	checker, err := jsonschema.Compile(p.PayloadSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte, code int) {
		if vs, err := checker.Check(payload); err != nil || len(vs) > 0 || !json.Valid(payload) {
			return
		}
		if _, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: string(payload)}); err != nil {
			t.Errorf("success: %v", err)
		}
		failed := engine.Result{ExitCode: code, Signal: "none"}
		if _, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: string(payload), Result: failed}); err != nil {
			if f := fault.Classify(err); f.Kind != fault.Intermittent || code < 1 {
				t.Errorf("exit code %d: %v", code, err)
			}
		}
	})
}
