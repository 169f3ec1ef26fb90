package taskcluster

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcsecrets"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcworkermanager"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/identity/identitytest"
)

// registered is a worker of a static provider, at a devqueue whose credentials
// for workers are good for three seconds.
type registered struct {
	*deployment
	manager *tcworkermanager.WorkerManager
	client  *Client // the worker's
	static  bool    // the worker does not register
	made    identity.Provider
}

const staticSecret = "a_secret_of_44_characters_as_is_due_00000000"

func newRegistered(tb testing.TB, static bool) *registered {
	tb.Helper()
	d := newDeployment(tb, S3)
	cfg := d.client.cfg
	root := &tcclient.Credentials{ClientID: cfg.Credentials.ClientID, AccessToken: cfg.Credentials.AccessToken}
	r := &registered{deployment: d, manager: tcworkermanager.New(root, cfg.RootURL), static: static}
	_, err := r.manager.CreateWorkerPool(cfg.TaskQueueID, &tcworkermanager.WorkerPoolDefinition{
		ProviderID: "static", Description: "d", Owner: "owner@example.com",
		Config: json.RawMessage(`{"workerConfig":{"config":{"a":1,"b":{"c":[1],"d":2}}},"lifecycle":{"reregistrationTimeout":3}}`),
	})
	if err != nil {
		tb.Fatal(err)
	}
	_, err = r.manager.CreateWorker(cfg.TaskQueueID, cfg.WorkerGroup, cfg.WorkerID, &tcworkermanager.WorkerCreationUpdateRequest{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Capacity: 1, ProviderInfo: json.RawMessage(`{"staticSecret":"` + staticSecret + `"}`),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if !static {
		cfg.Credentials = task.Credentials{}
	}
	r.client = connect(tb, cfg)
	return r
}

func (r *registered) Provider(tb testing.TB) identity.Provider {
	tb.Helper()
	if r.made != nil {
		return r.made
	}
	if r.static {
		r.made = NewStaticIdentity(r.client)
		return r.made
	}
	made, shut, err := NewIdentity(tb.Context(), r.client, IdentityConfig{
		ProviderID: "static", Prove: ProveStatic(staticSecret), BootTime: time.Now(),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(shut)
	r.made = made
	return made
}

func (r *registered) Worker() identity.Worker {
	return identity.Worker{Pool: "test/queue", Group: "group", ID: "worker"}
}

func (r *registered) Accepted(tb testing.TB, c task.Credentials) bool {
	tb.Helper()
	cfg := r.client.cfg
	cfg.Credentials = c
	err := connect(tb, cfg).Verify(tb.Context())
	if err != nil {
		tb.Log(err)
	}
	return err == nil
}

func (r *registered) Renew(tb testing.TB) {
	tb.Helper()
	for before := r.client.credentials(); !r.static && r.client.credentials() == before; {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-tb.Context().Done():
			tb.Fatal("credentials are not renewed")
		}
	}
}

func (r *registered) Removed(tb testing.TB) bool {
	tb.Helper()
	w, err := r.manager.Worker("test/queue", "group", "worker")
	if err != nil {
		tb.Fatal(err)
	}
	return w.State == "stopped"
}

func (r *registered) Reports(tb testing.TB) []identity.Report {
	tb.Helper()
	list, err := r.manager.ListWorkerPoolErrors("test/queue", "", "")
	if err != nil {
		tb.Fatal(err)
	}
	var reports []identity.Report
	for _, e := range list.WorkerPoolErrors {
		var extra map[string]any
		if err := json.Unmarshal(e.Extra, &extra); err != nil {
			tb.Fatal(err)
		}
		reports = append(reports, identity.Report{Kind: e.Kind, Title: e.Title, Description: e.Description, Extra: extra})
	}
	return reports
}

func TestIdentity(t *testing.T) {
	for name, static := range map[string]bool{"static": true, "registered": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			identitytest.Test(t, func(tb testing.TB) identitytest.Harness {
				tb.Helper()
				return newRegistered(tb, static)
			})
		})
	}
}

func TestPoolConfig(t *testing.T) {
	r := newRegistered(t, false)
	i, ok := r.Provider(t).(*Identity)
	if !ok {
		t.Fatal("it is another provider")
	}
	one := json.Number("1")
	want := map[string]any{"a": one, "b": map[string]any{"c": []any{one}, "d": json.Number("2")}}
	got, err := i.PoolConfig(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("without a secret, %v: %s", err, diff)
	}
	root := r.deployment.client.cfg
	secrets := tcsecrets.New(&tcclient.Credentials{ClientID: root.Credentials.ClientID, AccessToken: root.Credentials.AccessToken}, root.RootURL)
	err = secrets.Set("worker-pool:test/queue", &tcsecrets.Secret{
		Expires: tcclient.Time(time.Now().Add(time.Hour)), Secret: json.RawMessage(`{"config":{"b":{"c":["x"],"d":null},"e":"f"},"files":[]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	want = map[string]any{"a": one, "b": map[string]any{"c": []any{one, "x"}, "d": nil}, "e": "f"}
	got, err = i.PoolConfig(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("with a secret, %v: %s", err, diff)
	}
}

func TestWorkerConfig(t *testing.T) {
	for _, tt := range []struct{ name, raw, want, err string }{
		{"none", "", "{}", ""},
		{"an object as it was before there were files", `{"a":1,"config":2}`, `{"a":1,"config":2}`, ""},
		{"an empty one", `{"files":[]}`, "{}", ""},
		{"a list", `["s3cret"]`, "", "is not a JSON object"},
		{"null", `null`, "", "is not a JSON object"},
		{"another config", `{"config":["s3cret"]}`, "", `"config" is not a JSON object`},
		{"files", `{"files":["s3cret"]}`, "", `has "files", which this worker does not write`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := workerConfig(json.RawMessage(tt.raw))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("returned %v, want %s", err, tt.err)
				}
				return
			}
			raw, _ := json.Marshal(got)
			if err != nil || string(raw) != tt.want {
				t.Errorf("returned %s, %v; want %s", raw, err, tt.want)
			}
		})
	}
}

func TestProofs(t *testing.T) {
	give := func(context.Context) (string, error) { return "<x>", nil }
	pair := func(context.Context) (string, string, error) { return "{\n}", "s", nil }
	for want, prover := range map[string]Prover{
		`{"document":"{\n}","signature":"s"}`: ProveToAWS(pair),
		`{"token":"\u003cx\u003e"}`:           ProveToGoogle(give),
		`{"document":"\u003cx\u003e"}`:        ProveToAzure(give),
		`{"staticSecret":"\u003cx\u003e"}`:    ProveStatic("<x>"),
	} {
		if got, err := prover(t.Context()); err != nil || string(got) != want {
			t.Errorf("proof is %s, %v; want %s", got, err, want)
		}
	}
	broken := errors.New("metadata is silent")
	_, err := ProveToAWS(func(context.Context) (string, string, error) { return "", "", broken })(t.Context())
	if !errors.Is(err, broken) {
		t.Errorf("returned %v", err)
	}
}

// grant answers as worker-manager does, with credentials for an hour.
func grant(client, secret string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer(200, map[string]any{
			"expires": time.Now().Add(time.Hour), "secret": secret,
			"credentials": map[string]string{"clientId": client, "accessToken": "t"},
		})(w, r)
	}
}

func TestRenewal(t *testing.T) {
	used := refusal(400, "InputValidationError", "Could not generate credentials for this secret")
	for _, tt := range []struct {
		name                 string
		register, reregister http.HandlerFunc
		after                time.Duration
		client               string // whose credentials the worker then has
		notice               bool
	}{
		{"is not due", grant("first", "1"), nil, 37 * time.Minute, "first", false},
		{"comes in time", grant("first", "1"), grant("second", "2"), 41 * time.Minute, "second", false},
		{"survives an outage", grant("first", "1"), inTurn(refusal(503, "", ""), refusal(502, "", ""), grant("second", "2")), 42 * time.Minute, "second", false},
		{"survives the loss of an answer", inTurn(grant("first", "1"), grant("again", "2")), used, 41 * time.Minute, "again", false},
		{"fails for good", inTurn(grant("first", "1"), refusal(400, "InputValidationError", "already registered")), used, 41 * time.Minute, "first", true},
		{"is not tried beyond the end", grant("first", "1"), refusal(503, "", ""), 61 * time.Minute, "first", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := worker
				cfg.Credentials = task.Credentials{}
				c, _ := serve(t, cfg, map[string]http.HandlerFunc{register: tt.register, reregister: tt.reregister})
				i, shut, err := NewIdentity(t.Context(), c, IdentityConfig{ProviderID: "static", Prove: ProveStatic("s")}, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				defer shut()
				<-time.After(tt.after)
				synctest.Wait()
				if got := i.Credentials().ClientID; got != tt.client {
					t.Errorf("the worker is %q, want %q", got, tt.client)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				n, err := i.Wait(ctx)
				if noticed := err == nil; noticed != tt.notice || !n.Deadline.IsZero() {
					t.Errorf("notice %+v, %v; want one: %t", n, err, tt.notice)
				}
			})
		})
	}
}

// The next process is the same worker, with the last secret, although it may not
// register again; until the worker is removed.
func TestNextProcessIsTheSameWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := worker
		cfg.Credentials = task.Credentials{}
		once := refusal(400, "InputValidationError", "This worker is either stopped or running. No need to register")
		c, m := serve(t, cfg, map[string]http.HandlerFunc{
			register:   inTurn(grant("first", "1"), once),
			reregister: inTurn(grant("renewed", "2"), grant("renewed", "3")),
			"DELETE /api/worker-manager/v1/workers/prov%2Ftype/group/id": answer(http.StatusOK, nil),
		})
		file := filepath.Join(t.TempDir(), "state", "registration.json")
		identityConfig := IdentityConfig{ProviderID: "aws", Prove: ProveStatic("s"), File: file}
		live := func(client string, after time.Duration) *Identity {
			t.Helper()
			i, shut, err := NewIdentity(t.Context(), c, identityConfig, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer shut()
			if got := i.Credentials().ClientID; got != client {
				t.Errorf("the worker is %q, want %q", got, client)
			}
			<-time.After(after)
			synctest.Wait()
			return i
		}
		live("first", 10*time.Minute)
		live("first", 45*time.Minute)
		last := live("renewed", 45*time.Minute)
		var secrets []string
		for _, r := range m.requests(reregister) {
			var body struct{ Secret string }
			if err := json.Unmarshal([]byte(r.body), &body); err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, body.Secret)
		}
		if diff := cmp.Diff([]string{"1", "2"}, secrets); diff != "" {
			t.Errorf("secrets (-want +got):\n%s", diff)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file is %v, %v", info, err)
		}

		// What is of no use is not used.
		for what, content := range map[string]string{
			"half a file": `{"RootURL": "`, "another worker's": `{"ProviderID": "other"}`,
		} {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := NewIdentity(t.Context(), c, identityConfig, slog.New(slog.DiscardHandler)); err == nil {
				t.Errorf("%s: no error although the worker may not register", what)
			}
		}
		if err := last.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the registration of a worker that is removed is there: %v", err)
		}
	})
}

func TestNewIdentityNamesWhatIsWrong(t *testing.T) {
	discard := slog.New(slog.DiscardHandler)
	c, _ := serve(t, worker, map[string]http.HandlerFunc{register: refusal(400, "InputValidationError", "bad staticSecret")})
	for want, cfg := range map[string]IdentityConfig{
		"no provider is configured": {},
		"bad staticSecret":          {ProviderID: "static", Prove: ProveStatic("s")},
		"no metadata": {ProviderID: "aws", Prove: func(context.Context) (json.RawMessage, error) {
			return nil, errors.New("no metadata")
		}},
	} {
		if _, _, err := NewIdentity(t.Context(), c, cfg, discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("returned %v, want %s", err, want)
		}
	}
}

// A process that is killed while it keeps its registration leaves a secret behind,
// for no longer than until the next one keeps its own.
func TestRegistrationIsInOneFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "registration.json")
	if err := os.WriteFile(name+unfinished, []byte("half of a sec"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(name, []byte("a secret")); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
	if content, err := os.ReadFile(name); string(content) != "a secret" {
		t.Errorf("it has %q, %v", content, err)
	}
	if s, err := os.Stat(name); err != nil || s.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", s.Mode(), err)
	}
}
