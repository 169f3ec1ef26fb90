package artifacts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/jsonschema"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/artifacts"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/plugin/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	plugintest.Test(t, func(tb testing.TB) plugintest.Subject {
		tb.Helper()
		return plugintest.Subject{
			Plugin:  artifacts.New(artifacts.Config{TempDir: tb.TempDir()}),
			Payload: `{"artifacts": [{"type": "file", "path": "missing", "optional": true}, {"type": "directory", "path": "."}]}`,
			Compile: jsonschema.Compile,
		}
	})
}

// files are what tasks leave in these tests.
func files() fstest.MapFS {
	f := fstest.MapFS{}
	for name, content := range map[string]string{
		"home/task/a.log":         "log of a\n",
		"home/task/b.tgz":         "not really compressed",
		"home/task/out/x.json":    "{}",
		"home/task/out/sub/y.txt": strings.Repeat("text\n", 1000),
		"home/task/out/empty":     "",
		"etc/release":             "Debian",
	} {
		f[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return f
}

func through(t *testing.T, payload string, fsys fs.FS) (*plugintest.Drive, error) {
	t.Helper()
	return plugintest.Through(t.Context(), artifacts.New(artifacts.Config{TempDir: t.TempDir()}),
		plugintest.Setup{Payload: `{"artifacts": [` + payload + `]}`, Files: fsys})
}

// published lists artifacts as "name: kind encoding type text", or with the
// reason of their absence.
func published(d *plugintest.Drive) []string {
	var all []string
	for _, name := range d.Artifacts.Names() {
		a := d.Artifacts.Get(name)
		if a.Kind == "error" {
			all = append(all, fmt.Sprintf("%s: %s", name, a.Absence))
			continue
		}
		text, encoding := a.Text, a.Encoding
		if encoding == "" {
			encoding = "identity"
		}
		if len(text) > 30 {
			text = fmt.Sprintf("%d bytes", len(text))
		}
		all = append(all, fmt.Sprintf("%s: %s, %s, %s", name, encoding, a.Meta.ContentType, text))
	}
	return all
}

func TestPublishes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		want    []string
	}{
		{
			"a file by its path", `{"type": "file", "path": "a.log"}`,
			[]string{"a.log: gzip, text/plain; charset=utf-8, log of a\n"},
		},
		{
			"a file by a name, not compressed twice", `{"type": "file", "path": "./b.tgz", "name": "public/b"}`,
			[]string{"public/b: identity, application/gzip, not really compressed"},
		},
		{
			"an absolute path", `{"type": "file", "path": "/etc/release", "name": "public/release"}`,
			[]string{"public/release: gzip, application/octet-stream, Debian"},
		},
		{
			"a path that leaves the task directory stays in the sandbox", `{"type": "file", "path": "../../../../etc/release", "name": "r"}`,
			[]string{"r: gzip, application/octet-stream, Debian"},
		},
		{
			"type and encoding as said", `{"type": "file", "path": "a.log", "contentType": "text/x-mine", "contentEncoding": "identity"}`,
			[]string{"a.log: identity, text/x-mine, log of a\n"},
		},
		{
			"a directory with all that is in it", `{"type": "directory", "path": "out", "name": "public/out/"}`,
			[]string{
				"public/out/empty: gzip, application/octet-stream, ",
				"public/out/sub/y.txt: gzip, text/plain; charset=utf-8, 5000 bytes",
				"public/out/x.json: gzip, application/json, {}",
			},
		},
		{
			"the task directory", `{"type": "directory", "path": ".", "contentType": "x/y"}`,
			[]string{
				"a.log: gzip, x/y, log of a\n", "b.tgz: identity, x/y, not really compressed", "out/empty: gzip, x/y, ",
				"out/sub/y.txt: gzip, x/y, 5000 bytes", "out/x.json: gzip, x/y, {}",
			},
		},
		{
			"a file that is also in a directory, as is said of the file",
			`{"type": "directory", "path": "out"}, {"type": "file", "path": "out/x.json", "contentType": "x/y"}`,
			[]string{"out/empty: gzip, application/octet-stream, ", "out/sub/y.txt: gzip, text/plain; charset=utf-8, 5000 bytes", "out/x.json: gzip, x/y, {}"},
		},
		{
			"the same, the other way round",
			`{"type": "file", "path": "out/x.json", "contentType": "x/y"}, {"type": "directory", "path": "out/"}`,
			[]string{"out/empty: gzip, application/octet-stream, ", "out/sub/y.txt: gzip, text/plain; charset=utf-8, 5000 bytes", "out/x.json: gzip, x/y, {}"},
		},
		{
			"one file by two names", `{"type": "file", "path": "a.log"}, {"type": "file", "path": "a.log", "name": "b"}`,
			[]string{"a.log: gzip, text/plain; charset=utf-8, log of a\n", "b: gzip, text/plain; charset=utf-8, log of a\n"},
		},
		{
			"what is optional and there or not", `{"type": "file", "path": "a.log", "optional": true}, {"type": "file", "path": "nope", "optional": true}`,
			[]string{"a.log: gzip, text/plain; charset=utf-8, log of a\n", "nope: file-missing-on-worker"},
		},
		{"an optional directory that is not there", `{"type": "directory", "path": "nope", "optional": true}`, []string{"nope: file-missing-on-worker"}},
		{"nothing", ``, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := through(t, tt.payload, files())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, published(d)); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	definition := plugintest.Definition(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	for _, tt := range []struct{ name, expires, want, fault string }{
		{"is the task's by default", ``, "2026-01-03T03:04:05.000Z", ""},
		{"may be the deadline", `2026-01-02T04:04:05.000Z`, "2026-01-02T04:04:05.000Z", ""},
		{"may be in another zone", `2026-01-02T06:00:00+01:00`, "2026-01-02T05:00:00.000Z", ""},
		{"may be the task's", `2026-01-03T03:04:05Z`, "2026-01-03T03:04:05.000Z", ""},
		{"not before the deadline", `2026-01-02T04:04:04.999Z`, "", "expires before task deadline"},
		{"not after the task's", `2026-01-03T03:04:05.001Z`, "", "expires after task expiry"},
		{"not what the schema alone takes for a time", `2026-12-31T23:59:60Z`, "", "not a valid date-time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			payload := `{"artifacts": [{"type": "file", "path": "a.log"` + `, "expires": "` + tt.expires + `"}]}`
			d, err := plugintest.Through(t.Context(), artifacts.New(artifacts.Config{}),
				plugintest.Setup{Payload: payload, Files: files(), Definition: definition})
			if tt.fault != "" {
				expectFault(t, err, fault.Malformed, tt.fault)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := d.Artifacts.Get("a.log").Meta.Expires.UTC().Format("2006-01-02T15:04:05.000Z")
			if got != tt.want {
				t.Errorf("expires %s, want %s", got, tt.want)
			}
		})
	}
}

func expectFault(t *testing.T, err error, kind fault.Kind, message string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != kind || !strings.Contains(f.Message, message) {
		t.Errorf("error %v, want a fault of kind %v that says %q", err, kind.Resolution(), message)
	}
}

func TestContradictions(t *testing.T) {
	for _, tt := range []struct{ name, payload, want string }{
		{
			"an identical entry twice", `{"type": "file", "path": "a"}, {"type": "directory", "path": "a"}, {"type": "file", "path": "a"}`,
			"artifacts[2]: is the same as artifacts[0]",
		},
		{
			"two files of one name", `{"type": "file", "path": "a.log", "name": "x"}, {"type": "file", "path": "b.tgz", "name": "x"}`,
			`artifacts[1]: has the name "x", as has artifacts[0]`,
		},
		{
			"a file of another's path", `{"type": "file", "path": "a.log"}, {"type": "file", "path": "b.tgz", "name": "a.log"}`,
			`artifacts[1]: has the name "a.log", as has artifacts[0]`,
		},
		{
			"a file of the name of one in a directory", `{"type": "file", "path": "a.log", "name": "out/x.json", "optional": true}, {"type": "directory", "path": "out", "optional": true}`,
			`artifact "out/x.json": /home/task/a.log and /home/task/out/x.json are two files of one name`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := through(t, tt.payload, files())
			expectFault(t, err, fault.Malformed, tt.want)
		})
	}
}

func TestLog(t *testing.T) {
	d, err := through(t, `{"type": "file", "path": "a.log", "name": "public/a"}, {"type": "file", "path": "nope"},
		{"type": "file", "path": "no2", "optional": true}, {"type": "directory", "path": "out", "name": "o"}`, files())
	expectFault(t, err, fault.Failure, `artifact "nope": Could not read file '/home/task/nope': it does not exist`)
	expires := d.Artifacts.Get("public/a").Meta.Expires.Format("2006-01-02T15:04:05.000Z")
	var got []string
	for line := range strings.Lines(d.Log()) {
		prefix, message, _ := strings.Cut(line, "] ")
		kind, _, _ := strings.Cut(prefix, " ")
		got = append(got, kind+"] "+strings.TrimSuffix(message, " and expiry "+expires+"\n"))
	}
	want := []string{
		`[taskcluster] Uploading artifact public/a from file /home/task/a.log with content encoding "gzip", mime type "text/plain; charset=utf-8"`,
		`[taskcluster:error] Uploading error artifact nope from file /home/task/nope with message "Could not read file '/home/task/nope': it does not exist", reason "file-missing-on-worker"`,
		`[taskcluster] Uploading error artifact no2 from file /home/task/no2 with message "Could not read file '/home/task/no2': it does not exist", reason "file-missing-on-worker"`,
		`[taskcluster] Uploading artifact o/empty from file /home/task/out/empty with content encoding "gzip", mime type "application/octet-stream"`,
		`[taskcluster] Uploading artifact o/sub/y.txt from file /home/task/out/sub/y.txt with content encoding "gzip", mime type "text/plain; charset=utf-8"`,
		`[taskcluster] Uploading artifact o/x.json from file /home/task/out/x.json with content encoding "gzip", mime type "application/json"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestMoreFilesThanAllowed(t *testing.T) {
	d, err := plugintest.Through(t.Context(), artifacts.New(artifacts.Config{MaxFiles: 2}),
		plugintest.Setup{Payload: `{"artifacts": [{"type": "directory", "path": "out", "optional": true}]}`, Files: files()})
	expectFault(t, err, fault.Failure, "more than 2 files")
	if got := d.Artifacts.Names(); len(got) != 2 {
		t.Errorf("published %q, want as many as allowed", got)
	}
}

func TestSalvage(t *testing.T) {
	const payload = `{"artifacts": [{"type": "file", "path": "a.log"}, {"type": "file", "path": "nope"}, {"type": "directory", "path": "out"}]}`
	all := []string{"a.log", "out/empty", "out/sub/y.txt", "out/x.json"}
	start := func(t *testing.T) *plugintest.Drive {
		t.Helper()
		d, err := plugintest.Start(artifacts.New(artifacts.Config{Parallel: 1}), plugintest.Setup{Payload: payload, Files: files()})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, why := range []run.Reason{run.InternalError, run.ResourceUnavailable} {
		t.Run("what is there, where the run was stopped before: "+string(why), func(t *testing.T) {
			d := start(t)
			if err := d.Salvage(t.Context(), why); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(all, d.Artifacts.Names()); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("nothing, where there was no sandbox", func(t *testing.T) {
		d := start(t)
		d.ResultSet = nil
		if err := d.Salvage(t.Context(), run.MalformedPayload); err != nil {
			t.Fatal(err)
		}
		if got := d.Artifacts.Names(); len(got) > 0 {
			t.Errorf("published %q", got)
		}
	})
	t.Run("only what is left, where the run was stopped in between", func(t *testing.T) {
		d := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var asked []string
		d.Artifacts.Err = func(name string) error {
			asked = append(asked, name)
			if name == "out/empty" {
				cancel()
				return ctx.Err()
			}
			return nil
		}
		if err := d.Stopped(ctx); err == nil {
			t.Error("a stage that was stopped went well")
		}
		d.Artifacts.Err = func(name string) error {
			asked = append(asked, name)
			return nil
		}
		if err := d.Salvage(t.Context(), run.InternalError); err != nil {
			t.Fatal(err)
		}
		want := []string{"a.log", "nope", "out/empty", "out/empty", "out/sub/y.txt", "out/x.json"}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("asked the store for (-want +got):\n%s", diff)
		}
	})
}

// Artifacts were lost at a spot notice, or kept the worker from saving others.
func TestInterruptionSavesWhatTheTaskWants(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		want          []string
	}{
		{"nothing by default", `{"type": "file", "path": "a.log"}, {"type": "directory", "path": "out", "onInterruption": "none"}`, nil},
		{"a file", `{"type": "file", "path": "a.log", "onInterruption": "upload"}, {"type": "file", "path": "b.tgz"}`, []string{"a.log"}},
		{
			"what there is of a directory", `{"type": "directory", "path": "out", "onInterruption": "upload"}, {"type": "file", "path": "b.tgz"}`,
			[]string{"out/empty", "out/sub/y.txt", "out/x.json"},
		},
		{
			"nothing of what is missing", `{"type": "file", "path": "nope", "onInterruption": "upload"}, {"type": "file", "path": "no2", "optional": true, "onInterruption": "upload"},
			 {"type": "directory", "path": "no3", "onInterruption": "upload"}, {"type": "directory", "path": "a.log", "onInterruption": "upload"}`, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plugintest.Start(artifacts.New(artifacts.Config{}), plugintest.Setup{Payload: `{"artifacts": [` + tt.payload + `]}`, Files: files()})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Salvage(t.Context(), run.WorkerShutdown); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, d.Artifacts.Names()); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
			if strings.Contains(d.Log(), "error") {
				t.Errorf("the log complains:\n%s", d.Log())
			}
		})
	}
}

func TestWhatIsLargeIsSavedLast(t *testing.T) {
	files := fstest.MapFS{}
	for name, size := range map[string]int{"a": 1<<20 + 1, "b": 10, "c": 1 << 20} {
		files["home/task/"+name] = &fstest.MapFile{Data: make([]byte, size), Mode: 0o644}
	}
	d, err := plugintest.Start(artifacts.New(artifacts.Config{}), plugintest.Setup{
		Payload: `{"artifacts": [{"type": "directory", "path": ".", "onInterruption": "upload"}]}`, Files: files,
	})
	if err != nil {
		t.Fatal(err)
	}
	var published []string
	d.Artifacts.Err = func(name string) error {
		if name == "a" {
			published = d.Artifacts.Names()
		}
		return nil
	}
	if err := d.Salvage(t.Context(), run.WorkerShutdown); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"b", "c"}, published); diff != "" {
		t.Errorf("artifacts before the large one (-want +got):\n%s", diff)
	}
}

func TestStoreErrors(t *testing.T) {
	away := fault.Unavailablef(errors.New("503"), "the queue is away")
	const payload = `{"type": "file", "path": "nope"}, {"type": "file", "path": "a.log"}, {"type": "directory", "path": "out"}`
	for _, tt := range []struct {
		name  string
		fails map[string]error
		kind  fault.Kind
		left  []string
	}{
		{"the first in order decides, and the rest is published", map[string]error{"a.log": away}, fault.Failure, []string{"nope", "out/empty", "out/sub/y.txt", "out/x.json"}},
		{"what cannot even be explained", map[string]error{"nope": away}, fault.Unavailable, []string{"a.log", "out/empty", "out/sub/y.txt", "out/x.json"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plugintest.Start(artifacts.New(artifacts.Config{}), plugintest.Setup{Payload: `{"artifacts": [` + payload + `]}`, Files: files()})
			if err != nil {
				t.Fatal(err)
			}
			d.Artifacts.Err = func(name string) error { return tt.fails[name] }
			expectFault(t, d.Stopped(t.Context()), tt.kind, "")
			if diff := cmp.Diff(tt.left, d.Artifacts.Names()); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReservedNames(t *testing.T) {
	d, err := plugintest.Start(artifacts.New(artifacts.Config{}), plugintest.Setup{
		Payload: `{"artifacts": [{"type": "file", "path": "a.log", "name": "public/logs/live.log"}, {"type": "file", "path": "b.tgz"}]}`,
		Files:   files(),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Artifacts.Err = func(name string) error {
		if name == "public/logs/live.log" {
			return fmt.Errorf("%w: it is the log's", artifact.ErrReserved)
		}
		return nil
	}
	if err := d.Stopped(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "Artifact public/logs/live.log is not published"; !strings.Contains(d.Log(), want) {
		t.Errorf("log says nothing of %q:\n%s", want, d.Log())
	}
	if diff := cmp.Diff([]string{"b.tgz"}, d.Artifacts.Names()); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

func TestParallel(t *testing.T) {
	var payload []string
	fsys := fstest.MapFS{}
	for i := range 20 {
		payload = append(payload, fmt.Sprintf(`{"type": "file", "path": "%d"}`, i))
		fsys[fmt.Sprintf("home/task/%d", i)] = &fstest.MapFile{Data: []byte("x")}
	}
	d, err := plugintest.Start(artifacts.New(artifacts.Config{Parallel: 3}),
		plugintest.Setup{Payload: `{"artifacts": [` + strings.Join(payload, ",") + `]}`, Files: fsys})
	if err != nil {
		t.Fatal(err)
	}
	// The first three uploads wait for each other.
	arrived := make(chan struct{}, 20)
	three := make(chan struct{})
	d.Artifacts.Err = func(string) error {
		arrived <- struct{}{}
		if len(arrived) == 3 {
			close(three)
		}
		<-three
		return nil
	}
	if err := d.Stopped(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := d.Artifacts.MostAtOnce(); got != 3 {
		t.Errorf("%d uploads at once, want 3", got)
	}
}

// Whatever the payload, artifacts are read from within the file system, and no
// two files have one name.
func FuzzPayload(f *testing.F) {
	for _, payload := range []string{
		`{"artifacts": [{"type": "file", "path": "a.log"}]}`,
		`{"artifacts": [{"type": "directory", "path": "/"}]}`,
		`{"artifacts": [{"type": "directory", "path": "../..", "name": "x/../.."}]}`,
		`{"artifacts": [{"type": "file", "path": "a\u0000"}, {"type": "file", "path": "//etc//release"}]}`,
		`{"artifacts": [{"type": "file", "path": "out", "name": "\n"}], "optional": 3}`,
	} {
		f.Add([]byte(payload))
	}
	p := artifacts.New(artifacts.Config{})
	checker, err := jsonschema.Compile(p.PayloadSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if vs, err := checker.Check(payload); err != nil || len(vs) > 0 || !json.Valid(payload) {
			return
		}
		fsys := &strict{FS: files(), t: t}
		_, err := plugintest.Through(t.Context(), p, plugintest.Setup{Payload: string(payload), Files: fsys})
		if f := fault.Classify(err); f != nil && f.Kind != fault.Failure && f.Kind != fault.Malformed {
			t.Errorf("error %v is not the task's", err)
		}
	})
}

// strict is a file system that insists on valid paths.
type strict struct {
	fs.FS
	t *testing.T
}

func (s *strict) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		s.t.Errorf("opened %q, which is no valid path", name)
	}
	return s.FS.Open(name)
}
