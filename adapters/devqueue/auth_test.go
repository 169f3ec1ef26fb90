package devqueue_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/taskcluster/slugid-go/slugid"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcauth"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

const token = "Secretsecretsecretsecretsecretsecretsecret00"

func authAs(t *testing.T, server *devqueue.Server, c *tcclient.Credentials) *tcauth.Auth {
	t.Helper()
	a := tcauth.New(c, server.RootURL())
	a.HTTPClient = httpClient(t)
	return a
}

func TestCallersNeedCredentialsAndScopes(t *testing.T) {
	server := open(t, devqueue.Config{Clients: []devqueue.Client{
		{ClientID: "limited", AccessToken: token, Scopes: []string{"queue:claim-work:test/*", "auth:create-client:limited/*", "queue:worker-id:here/*"}},
	}})
	limited := &tcclient.Credentials{ClientID: "limited", AccessToken: token}
	named, err := limited.CreateNamedTemporaryCredentials("limited/x", time.Hour, "queue:claim-work:test/other")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := limited.CreateNamedTemporaryCredentials("somebody", time.Hour, "queue:claim-work:test/fast")
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := limited.CreateTemporaryCredentials(time.Hour, "queue:*")
	if err != nil {
		t.Fatal(err)
	}
	unnamed, err := limited.CreateTemporaryCredentials(time.Hour, "queue:create-task:*")
	if err != nil {
		t.Fatal(err)
	}
	over, err := limited.CreateTemporaryCredentials(-time.Hour, "queue:claim-work:test/fast")
	if err != nil {
		t.Fatal(err)
	}
	forged := *named
	forged.Certificate = strings.Replace(forged.Certificate, "other", "faster", 1)
	restricted, wider := *limited, *limited
	restricted.AuthorizedScopes = []string{"queue:claim-work:test/other"}
	wider.AuthorizedScopes = []string{"queue:quarantine-worker:*"}
	raw, err := json.Marshal(definition())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		credentials *tcclient.Credentials
		want        int
	}{
		{"nobody", nil, 403},
		{"unknown client", &tcclient.Credentials{ClientID: "unknown", AccessToken: token}, 401},
		{"wrong access token", &tcclient.Credentials{ClientID: "limited", AccessToken: "x"}, 401},
		{"scopes for other calls", limited, 403},
		{"named temporary credentials for other calls", named, 403},
		{"a name that the issuer may not give", foreign, 401},
		{"temporary credentials beyond the issuer", greedy, 401},
		{"temporary credentials of other scopes", unnamed, 401},
		{"expired", over, 401},
		{"forged certificate", &forged, 401},
		{"restricted to other calls", &restricted, 403},
		{"authorized scopes that the client lacks", &wider, 401},
		{"root", credentials(server.Credentials()), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queueAs(t, server, tt.credentials)
			refused(t, put(q, slugid.Nice(), raw), tt.want)
		})
	}
}

func TestAnybodyMayLook(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	nobody := queueAs(t, server, nil)
	if _, err := nobody.Status(id); err != nil {
		t.Errorf("status: %v", err)
	}
	_, err := nobody.CancelTask(id)
	refused(t, err, 403)
	closed := open(t, devqueue.Config{Roles: map[string][]string{"anonymous": {}}})
	_, err = queueAs(t, closed, nil).Status(id)
	refused(t, err, 403)
}

func TestSignedURLs(t *testing.T) {
	server := open(t, devqueue.Config{Roles: map[string][]string{"anonymous": {}}})
	root := asRoot(t, server)
	id := create(t, root, nil)
	u, err := root.Status_SignedURL(id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, "GET", u.String(), "", nil); got.status != http.StatusOK {
		t.Errorf("signed URL: %d: %s", got.status, got.body)
	}
	if got := fetch(t, "GET", strings.Replace(u.String(), "/status", "", 1), "", nil); got.status != http.StatusUnauthorized {
		t.Errorf("signature of another URL: %d: %s", got.status, got.body)
	}
	if got := fetch(t, "GET", strings.SplitN(u.String(), "?", 2)[0], "", nil); got.status != http.StatusForbidden {
		t.Errorf("no signature: %d: %s", got.status, got.body)
	}
}

func TestRolesExpand(t *testing.T) {
	server := open(t, devqueue.Config{Roles: map[string][]string{
		"anonymous":     {},
		"worker-pool:*": {"pool:<..>:x", "assume:common"},
		"common":        {"common", "assume:common"},
		"client-id:bob": {"assume:worker-pool:a/b"},
		"grow*":         {"assume:growx<..>"},
	}, Clients: []devqueue.Client{{ClientID: "bob", AccessToken: token, Scopes: []string{"auth:current-scopes", "auth:expand-scopes"}}}})
	bob := authAs(t, server, &tcclient.Credentials{ClientID: "bob", AccessToken: token})
	got, err := bob.CurrentScopes()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"assume:anonymous", "assume:client-id:bob", "assume:common", "assume:worker-pool:a/b",
		"auth:current-scopes", "auth:expand-scopes", "common", "pool:a/b:x",
	}
	if diff := cmp.Diff(want, got.Scopes); diff != "" {
		t.Errorf("current scopes (-want +got):\n%s", diff)
	}
	expanded, err := bob.ExpandScopes(&tcauth.SetOfScopes{Scopes: []string{"assume:worker-pool:*", "other"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"assume:common", "assume:worker-pool:*", "common", "other", "pool:*"}, expanded.Scopes); diff != "" {
		t.Errorf("expanded (-want +got):\n%s", diff)
	}
	if _, err := bob.ExpandScopes(&tcauth.SetOfScopes{Scopes: []string{"assume:grow"}}); err != nil {
		t.Errorf("a role that grows without end: %v", err)
	}
}

func TestClientsAndRolesOfTheAPI(t *testing.T) {
	dir := t.TempDir()
	server := open(t, devqueue.Config{Dir: dir})
	root := authAs(t, server, credentials(server.Credentials()))
	created, err := root.CreateClient("project/alice", &tcauth.CreateClientRequest{
		Description: "a client", Expires: tcclient.Time(time.Now().Add(time.Hour)), Scopes: []string{"assume:looker"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.CreateRole("looker", &tcauth.CreateRoleRequest{Description: "d", Scopes: []string{"queue:claim-work:*"}}); err != nil {
		t.Fatal(err)
	}
	alice := authAs(t, server, &tcclient.Credentials{ClientID: "project/alice", AccessToken: created.AccessToken})
	got, err := alice.CurrentScopes()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(got.Scopes, " "), "queue:claim-work:*") {
		t.Errorf("alice has %q", got.Scopes)
	}
	_, err = alice.CreateClient("project/eve", &tcauth.CreateClientRequest{Description: "d", Expires: tcclient.Time(time.Now().Add(time.Hour))})
	refused(t, err, 403)
	if err := root.DeleteClient("project/alice"); err != nil {
		t.Fatal(err)
	}
	_, err = alice.CurrentScopes()
	refused(t, err, 401)
	_, err = root.Role("nobody")
	refused(t, err, 404)
}

func TestAuthenticateHawk(t *testing.T) {
	server := open(t, devqueue.Config{})
	nobody := authAs(t, server, nil)
	u, err := authAs(t, server, credentials(server.Credentials())).CurrentScopes_SignedURL(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for resource, want := range map[string]string{u.RequestURI(): "auth-success", u.RequestURI() + "x": "auth-failed", u.Path: "no-auth"} {
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(map[string]any{"method": "get", "resource": resource, "host": u.Hostname(), "port": port})
		if err != nil {
			t.Fatal(err)
		}
		answer := fetch(t, "POST", nobody.RootURL+"/api/auth/v1/authenticate-hawk", string(body), map[string]string{"Content-Type": "application/json"})
		var got struct{ Status string }
		if err := json.Unmarshal([]byte(answer.body), &got); err != nil || got.Status != want {
			t.Errorf("%s is %s, want %s: %v", resource, answer.body, want, err)
		}
	}
}

func TestWebsocktunnelToken(t *testing.T) {
	server := open(t, devqueue.Config{TunnelSecret: "tunnel"})
	got, err := authAs(t, server, credentials(server.Credentials())).WebsocktunnelToken("audience", "a.client~1")
	if err != nil {
		t.Fatal(err)
	}
	if parts := strings.Split(got.Token, "."); got.WstClient != "a.client~1" || len(parts) != 3 || time.Until(time.Time(got.Expires)) < 90*time.Hour {
		t.Errorf("token %+v", got)
	}
}
