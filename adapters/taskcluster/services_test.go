package taskcluster

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcindex"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcpurgecache"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcsecrets"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

func TestServicesOfADeployment(t *testing.T) {
	d := newDeployment(t, S3)
	root := &tcclient.Credentials{ClientID: d.client.cfg.Credentials.ClientID, AccessToken: d.client.cfg.Credentials.AccessToken}
	rootURL, soon := d.client.cfg.RootURL, tcclient.Time(time.Now().Add(time.Hour))

	t.Run("index", func(t *testing.T) {
		const path = "project.tree.v1.2-3.latest"
		want := slugid.Nice()
		_, err := tcindex.New(root, rootURL).InsertTask(path, &tcindex.InsertTaskRequest{
			TaskID: want, Expires: soon, Data: []byte(`{}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewIndex(d.client).FindTask(t.Context(), d.client.cfg.Credentials, path)
		if err != nil || string(got) != want {
			t.Errorf("found %s, %v; want %s", got, err, want)
		}
		if got, err := NewIndex(d.client).FindTask(t.Context(), task.Credentials{}, "project.other"); !errors.Is(err, ErrNotFound) {
			t.Errorf("found %s, %v", got, err)
		}
	})
	t.Run("purge-cache", func(t *testing.T) {
		purge := tcpurgecache.New(root, rootURL)
		if err := purge.PurgeCache(d.client.cfg.TaskQueueID, &tcpurgecache.PurgeCacheRequest{CacheName: "c"}); err != nil {
			t.Fatal(err)
		}
		got, err := NewPurgeCache(d.client).PurgeRequests(t.Context(), time.Time{})
		if err != nil || len(got) != 1 || got[0].Name != "c" || time.Since(got[0].Before).Abs() > time.Minute {
			t.Errorf("got %v, %v", got, err)
		}
		got, err = NewPurgeCache(d.client).PurgeRequests(t.Context(), time.Now().Add(time.Minute))
		if err != nil || len(got) != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("secrets", func(t *testing.T) {
		const name = "worker-pool:prov/type"
		err := tcsecrets.New(root, rootURL).Set(name, &tcsecrets.Secret{Expires: soon, Secret: []byte(`{"a":"b"}`)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewSecrets(d.client).Get(t.Context(), name)
		if err != nil || string(got) != `{"a":"b"}` {
			t.Errorf("got %s, %v", got, err)
		}
		if got, err := NewSecrets(d.client).Get(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %s, %v", got, err)
		}
	})
	t.Run("verify", func(t *testing.T) {
		if err := d.client.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

const (
	register   = "POST /api/worker-manager/v1/worker/register"
	reregister = "POST /api/worker-manager/v1/worker/reregister"
	remove     = "DELETE /api/worker-manager/v1/workers/prov%2Ftype/group/id"
	report     = "POST /api/worker-manager/v1/worker-pool-errors/prov%2Ftype"
	terminate  = "GET /api/worker-manager/v1/workers/prov%2Ftype/group/id/should-terminate"
)

func TestRegister(t *testing.T) {
	expires := time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC)
	registered := answer(200, map[string]any{
		"expires": expires, "workerConfig": map[string]any{"a": 1}, "secret": "s",
		"credentials": map[string]string{"clientId": "c", "accessToken": "t", "certificate": "{}"},
	})
	want := Registration{
		Credentials: task.Credentials{ClientID: "c", AccessToken: "t", Certificate: "{}"},
		Expires:     expires, Config: json.RawMessage(`{"a":1}`), Secret: "s",
	}
	proof := Proof{ProviderID: "aws", Identity: json.RawMessage(`{"document":"d"}`), BootTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	const (
		plain = `{"workerPoolId":"prov/type","providerId":"aws","workerGroup":"group","workerId":"id","workerIdentityProof":{"document":"d"}`
		boot  = `,"systemBootTime":"2026-01-02T03:04:05.000Z"`
	)
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		bodies  []string
	}{
		{"with the boot time", registered, []string{plain + boot + "}"}},
		{
			"without, at a deployment that does not know it",
			inTurn(refusal(400, "InputValidationError", "additional property systemBootTime"), registered),
			[]string{plain + boot + "}", plain + "}"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, m := serve(t, worker, map[string]http.HandlerFunc{register: tt.handler})
			got, err := NewWorkerManager(c).Register(t.Context(), proof)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("registered with %v: %s", err, diff)
			}
			var bodies []string
			for _, a := range m.requests(register) {
				bodies = append(bodies, a.body)
				if a.client != "" {
					t.Errorf("registered as %q", a.client)
				}
			}
			if diff := cmp.Diff(tt.bodies, bodies); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("again", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{reregister: registered})
		got, err := NewWorkerManager(c).Reregister(t.Context(), "old")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("registered with %v: %s", err, diff)
		}
		asked := m.requests(reregister)[0]
		if want := `{"workerPoolId":"prov/type","workerGroup":"group","workerId":"id","secret":"old"}`; asked.body != want || asked.client != "worker" {
			t.Errorf("asked %s as %q, want %s", asked.body, asked.client, want)
		}
	})
	t.Run("makes one attempt, since a secret is used up", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{reregister: refusal(500, "", "")})
		if _, err := NewWorkerManager(c).Reregister(t.Context(), "old"); status(err) != 500 || len(m.requests(reregister)) != 1 {
			t.Errorf("returned %v after %d attempts", err, len(m.requests(reregister)))
		}
	})
}

func TestWorkerManager(t *testing.T) {
	t.Run("remove is repeated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, m := serve(t, worker, map[string]http.HandlerFunc{remove: inTurn(refusal(502, "", ""), answer(200, nil))})
			if err := NewWorkerManager(c).Remove(t.Context()); err != nil || len(m.requests(remove)) != 2 {
				t.Errorf("returned %v after %d attempts", err, len(m.requests(remove)))
			}
		})
	})
	t.Run("report an error", func(t *testing.T) {
		c, m := serve(t, worker, map[string]http.HandlerFunc{report: answer(200, nil)})
		if err := NewWorkerManager(c).ReportError(t.Context(), identity.Report{Kind: "k", Title: "t", Description: "d"}); err != nil {
			t.Fatal(err)
		}
		want := `{"workerGroup":"group","workerId":"id","kind":"k","title":"t","description":"d","extra":{}}`
		if asked := m.requests(report)[0]; asked.body != want || asked.client != "worker" {
			t.Errorf("asked %s as %q, want %s", asked.body, asked.client, want)
		}
	})
	t.Run("should terminate", func(t *testing.T) {
		c, _ := serve(t, worker, map[string]http.HandlerFunc{terminate: answer(200, map[string]any{"terminate": true, "reason": "over capacity"})})
		if yes, why, err := NewWorkerManager(c).ShouldTerminate(t.Context()); !yes || why != "over capacity" || err != nil {
			t.Errorf("returned %t, %q, %v", yes, why, err)
		}
	})
	t.Run("a deployment without an opinion", func(t *testing.T) {
		c, _ := serve(t, worker, map[string]http.HandlerFunc{terminate: refusal(404, "ResourceNotFound", "no")})
		if yes, _, err := NewWorkerManager(c).ShouldTerminate(t.Context()); yes || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("returned %t, %v", yes, err)
		}
	})
}

func TestPurgeRequestsSince(t *testing.T) {
	const op = "GET /api/purge-cache/v1/purge-cache/prov%2Ftype"
	c, m := serve(t, worker, map[string]http.HandlerFunc{op: answer(200, map[string]any{"requests": []any{}})})
	since := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600))
	if _, err := NewPurgeCache(c).PurgeRequests(t.Context(), since); err != nil {
		t.Fatal(err)
	}
	if got, want := m.requests(op)[0].query, "since=2026-01-02T02%3A04%3A05.678Z"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	const (
		ping    = "GET /api/queue/v1/ping"
		current = "GET /api/auth/v1/scopes/current"
	)
	scopes := func(s ...string) http.HandlerFunc { return answer(200, map[string]any{"scopes": s}) }
	alive := answer(200, map[string]any{"alive": true})
	for _, tt := range []struct {
		name          string
		ping, current http.HandlerFunc
		want          string // "" for no error
		credentials   bool
	}{
		{"nothing", alive, scopes("queue:claim-work:prov/*", "queue:worker-id:group/id"), "", false},
		{"the queue", refusal(503, "ServiceUnavailable", "down for repairs"), nil, "queue.ping: 503 ServiceUnavailable: down for repairs", false},
		{
			"the credentials", alive, refusal(401, "AuthenticationFailed", "Bad mac\nsecond line"),
			`http://tc.test refuses client "worker": auth.currentScopes: 401 AuthenticationFailed: Bad mac`, true,
		},
		{
			"the scopes", alive, scopes("queue:claim-work:prov/*"),
			`http://tc.test refuses client "worker": auth.currentScopes: 403 InsufficientScopes: claiming work needs the scope queue:worker-id:group/id`, true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, worker, map[string]http.HandlerFunc{ping: tt.ping, current: tt.current})
			err := c.Verify(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || err.Error() != tt.want {
				t.Errorf("returned %v, want %s", err, tt.want)
			}
			if _, ok := errors.AsType[*CredentialsError](err); ok != tt.credentials {
				t.Errorf("blames the credentials: %t, want %t", ok, tt.credentials)
			}
		})
	}
	t.Run("the address", func(t *testing.T) {
		cfg := worker
		cfg.RootURL = "http://127.0.0.1:1"
		err := connect(t, cfg).Verify(t.Context())
		want := "cannot reach http://127.0.0.1:1: queue.ping: dial tcp 127.0.0.1:1: connect: connection refused"
		if _, ok := errors.AsType[*UnreachableError](err); !ok || err.Error() != want {
			t.Errorf("returned %v, want %s", err, want)
		}
	})
	t.Run("the certificate", func(t *testing.T) {
		cfg := worker
		cfg.Credentials.Certificate = `"s3cret"`
		c, _ := serve(t, cfg, map[string]http.HandlerFunc{ping: alive})
		if err := c.Verify(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("returned %v", err)
		}
	})
}
