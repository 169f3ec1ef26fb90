package task_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

func TestParse(t *testing.T) {
	const raw = `{"provisionerId":"prov","workerType":"type","taskGroupId":"group","deadline":"2026-01-02T03:04:05.678Z","scopes":["a"],"payload":{"x":1},"unknown":[1,  2]}`
	d, err := task.Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if d.TaskQueueID != "prov/type" || d.TaskGroupID != "group" || d.Deadline.Nanosecond() != 678e6 || !d.Scopes.Satisfy("a") || string(d.Payload) != `{"x":1}` {
		t.Errorf("parsed %+v", d)
	}
	if string(d.Raw) != raw {
		t.Errorf("raw definition changed to %s", d.Raw)
	}
}

func TestParseRefusesWhatIsNoDefinition(t *testing.T) {
	for _, raw := range []string{``, `[]`, `{"created": 3}`, `{"scopes": "a"}`} {
		if d, err := task.Parse([]byte(raw)); err == nil {
			t.Errorf("Parse(%q) = %+v", raw, d)
		}
	}
}

func TestCredentialsHideTheirSecrets(t *testing.T) {
	c := task.Credentials{ClientID: "me", AccessToken: "s3cret", Certificate: "c3rt"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "s3cret") || strings.Contains(got, "c3rt") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// FuzzParse checks that no definition makes Parse panic, and that an accepted
// one is kept byte for byte.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"taskQueueId":"a/b","payload":{}}`))
	f.Add([]byte(`{"created":"2026-01-02T03:04:05Z","dependencies":["x"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := task.Parse(raw)
		if err != nil {
			return
		}
		if string(d.Raw) != string(raw) || !json.Valid(d.Raw) {
			t.Errorf("raw definition %q became %q", raw, d.Raw)
		}
	})
}
