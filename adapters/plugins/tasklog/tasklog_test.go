package tasklog_test

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/tasklog"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	plugintest.Test(t, func(tb testing.TB) plugintest.Subject {
		tb.Helper()
		return plugintest.Subject{
			Plugin:  tasklog.New(tasklog.Config{TempDir: tb.TempDir()}),
			Payload: `{"logs": {"live": "public/live"}, "features": {"liveLog": true}}`,
			Compile: jsonschema.Compile,
		}
	})
}

// text is a log that is read from memory.
type text string

func (s text) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(s))), nil }

func finish(t *testing.T, d *plugintest.Drive, log plugin.Log) error {
	t.Helper()
	f, ok := d.TaskPlugin.(plugin.Finisher)
	if !ok {
		return d.Close()
	}
	err := f.Finished(t.Context(), run.Resolution{Outcome: run.Completed}, log)
	return errors.Join(err, d.Close())
}

func TestPublishes(t *testing.T) {
	definition := plugintest.Definition(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	meta := func(name string) artifact.Meta {
		return artifact.Meta{Name: name, ContentType: "text/plain; charset=utf-8", Expires: definition.Expires}
	}
	upload := func(name string) plugintest.Artifact {
		return plugintest.Artifact{Meta: meta(name), Kind: "upload", Encoding: "gzip", Text: "the log\n"}
	}
	link := func(name, target string) plugintest.Artifact {
		return plugintest.Artifact{Meta: meta(name), Kind: "link", Target: target}
	}
	for _, tt := range []struct {
		name, payload string
		want          []plugintest.Artifact
	}{
		{"both logs", `{}`, []plugintest.Artifact{
			link("public/logs/live.log", "public/logs/live_backing.log"), upload("public/logs/live_backing.log"),
		}},
		{"both logs by other names", `{"logs": {"live": "l", "backing": "b"}, "features": {"liveLog": true, "backingLog": true}}`, []plugintest.Artifact{upload("b"), link("l", "b")}},
		{"one of them by another name", `{"logs": {"live": "public/l"}}`, []plugintest.Artifact{
			link("public/l", "public/logs/live_backing.log"), upload("public/logs/live_backing.log"),
		}},
		{"no live log", `{"features": {"liveLog": false}}`, []plugintest.Artifact{upload("public/logs/live_backing.log")}},
		{"no backing log", `{"features": {"backingLog": false}}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plugintest.Start(tasklog.New(tasklog.Config{TempDir: t.TempDir()}), plugintest.Setup{Payload: tt.payload, Definition: definition})
			if err != nil {
				t.Fatal(err)
			}
			reserved := d.ArtifactNames()
			if err := finish(t, d, text("the log\n")); err != nil {
				t.Fatal(err)
			}
			var got []plugintest.Artifact
			for _, name := range d.Artifacts.Names() {
				got = append(got, d.Artifacts.Get(name))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
			if len(reserved) != len(tt.want) {
				t.Errorf("reserves %q", reserved)
			}
			for _, name := range reserved {
				if d.Artifacts.Get(name).Kind == "" {
					t.Errorf("reserves %q, and does not publish it", name)
				}
			}
		})
	}
}

func TestLongLog(t *testing.T) {
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for _, tt := range []struct{ name, dir string }{
		{"compressed to a file", t.TempDir()},
		{"without room for a file", "/nonexistent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plugintest.Start(tasklog.New(tasklog.Config{TempDir: tt.dir}), plugintest.Setup{})
			if err != nil {
				t.Fatal(err)
			}
			if err := finish(t, d, text(noise)); err != nil {
				t.Fatal(err)
			}
			if d.Artifacts.Get("public/logs/live_backing.log").Text != string(noise) {
				t.Error("the log has changed")
			}
		})
	}
}

func TestOneNameForBoth(t *testing.T) {
	for _, payload := range []string{`{"logs": {"live": "x", "backing": "x"}}`, `{"logs": {"live": "public/logs/live_backing.log"}}`} {
		_, err := plugintest.Start(tasklog.New(tasklog.Config{}), plugintest.Setup{Payload: payload})
		if f := fault.Classify(err); f == nil || f.Kind != fault.Malformed {
			t.Errorf("%s: %v, want a malformed payload", payload, err)
		}
	}
}

func TestStoreThatIsAway(t *testing.T) {
	away := fault.Unavailablef(nil, "away")
	for _, fails := range []string{"public/logs/live_backing.log", "public/logs/live.log"} {
		d, err := plugintest.Start(tasklog.New(tasklog.Config{}), plugintest.Setup{})
		if err != nil {
			t.Fatal(err)
		}
		d.Artifacts.Err = func(name string) error {
			if name == fails {
				return away
			}
			return nil
		}
		if err := finish(t, d, text("log")); !errors.Is(err, away) {
			t.Errorf("%s: error %v, want that of the store", fails, err)
		}
	}
}

type unreadable struct{}

func (unreadable) Open() (io.ReadCloser, error) { return nil, io.ErrNoProgress }

func TestLogThatCannotBeRead(t *testing.T) {
	d, err := plugintest.Start(tasklog.New(tasklog.Config{}), plugintest.Setup{})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(t, d, unreadable{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want that of the log", err)
	}
}

// Whatever the payload, the log is published by the names that are reserved.
func FuzzPayload(f *testing.F) {
	for _, payload := range []string{
		`{}`, `{"logs": {}}`, `{"logs": {"live": "a", "backing": "a"}}`, `{"features": {"liveLog": false, "backingLog": false}}`, `{"logs": {"live": "\n"}}`,
	} {
		f.Add([]byte(payload))
	}
	p := tasklog.New(tasklog.Config{})
	checker, err := jsonschema.Compile(p.PayloadSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if vs, err := checker.Check(payload); err != nil || len(vs) > 0 || !json.Valid(payload) {
			return
		}
		d, err := plugintest.Start(p, plugintest.Setup{Payload: string(payload)})
		if err != nil {
			if f := fault.Classify(err); f.Kind != fault.Malformed {
				t.Errorf("error %v is not the task's", err)
			}
			return
		}
		reserved := d.ArtifactNames()
		if err := finish(t, d, text("log")); err != nil {
			t.Fatal(err)
		}
		if got := d.Artifacts.Names(); len(got) != len(reserved) {
			t.Errorf("reserves %q, publishes %q", reserved, got)
		}
	})
}
