package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/identity/identitytest"
)

// cloud is a deployment with worker-manager and secrets, and the metadata
// services of the clouds, as their documentations have them.
type cloud struct {
	url string

	mu         sync.Mutex
	registered map[string]any // the body of the only registration
	preempted  bool
	changed    chan struct{} // closed when the instance is preempted
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{changed: make(chan struct{})}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *cloud) preempt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preempted = true
	close(c.changed)
}

// google are values of Google's metadata service, by path.
var google = map[string]string{
	"id":                     "4520031799277581759",
	"zone":                   "projects/111222/zones/us-central1-a",
	"machine-type":           "projects/111222/machineTypes/n2-standard-4",
	"attributes/taskcluster": `{"workerPoolId":"proj-test/google","providerId":"gcp","workerGroup":"us-central1-a","rootUrl":"ROOT"}`,
	"network-interfaces/0/access-configs/0/external-ip": "203.0.113.7",
}

// azureInstance is what Azure's metadata service says of a machine.
const azureInstance = `{"compute":{"name":"vm1","location":"westus","vmSize":"Standard_F8s_v2","tagsList":[
	{"name":"root-url","value":"ROOT"},{"name":"provider-id","value":"azure2"},{"name":"worker-pool-id","value":"proj-test/azure"},{"name":"worker-group","value":"westus"}]}}`

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	say := func(s string) { _, _ = io.WriteString(w, strings.ReplaceAll(s, "ROOT", c.url)) }
	if at, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/"); ok {
		switch value, known := google[at]; {
		case known:
			say(value)
		case at == "maintenance-event":
			say("NONE")
		case at == "preempted":
			c.answerPreempted(w, r)
		case at == "service-accounts/default/identity":
			say("token for " + r.URL.Query().Get("audience"))
		default:
			http.NotFound(w, r)
		}
		return
	}
	switch r.URL.Path {
	case "/metadata/instance":
		say(azureInstance)
	case "/metadata/attested/document":
		say(`{"encoding":"pkcs7","signature":"c2lnbmVk"}`)
	case "/api/worker-manager/v1/worker/register":
		c.register(w, r)
	default:
		// There is no secret of the pool.
		http.Error(w, `{"code":"ResourceNotFound","message":"none"}`, http.StatusNotFound)
	}
}

func (c *cloud) answerPreempted(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("wait_for_change") != "" {
		select {
		case <-c.changed:
		case <-r.Context().Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := "FALSE"
	if c.preempted {
		answer = "TRUE"
	}
	_, _ = io.WriteString(w, answer)
}

func (c *cloud) register(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := json.NewDecoder(r.Body).Decode(&c.registered); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"expires": time.Now().Add(time.Hour), "secret": "s", "workerConfig": map[string]any{"config": map[string]any{"engine": "docker"}},
		"credentials": map[string]string{"clientId": "worker/1", "accessToken": "t"},
	})
}

func TestJoinInCloud(t *testing.T) {
	c := newCloud(t)
	for _, tt := range []struct {
		name, config string
		worker       identity.Worker
		machine      parts.Machine
		registers    map[string]any
	}{
		{
			"google", "provider: {type: google}",
			identity.Worker{Pool: "proj-test/google", Group: "us-central1-a", ID: "4520031799277581759"},
			parts.Machine{InstanceType: "n2-standard-4", PublicIP: "203.0.113.7", Location: `{"cloud":"google","region":"us-central1","zone":"us-central1-a"}`},
			map[string]any{
				"workerPoolId": "proj-test/google", "providerId": "gcp", "workerGroup": "us-central1-a", "workerId": "4520031799277581759",
				"workerIdentityProof": map[string]any{"token": "token for " + c.url},
			},
		},
		{
			"azure", "provider: {type: azure}",
			identity.Worker{Pool: "proj-test/azure", Group: "westus", ID: "vm1"},
			parts.Machine{InstanceType: "Standard_F8s_v2", Location: `{"cloud":"azure","region":"westus"}`},
			map[string]any{
				"workerPoolId": "proj-test/azure", "providerId": "azure2", "workerGroup": "westus", "workerId": "vm1",
				"workerIdentityProof": map[string]any{"document": "c2lnbmVk"},
			},
		},
		{
			"what is configured holds",
			"provider: {type: azure, id: mine}\nworker: {pool: proj-test/mine, group: g, id: w, instanceType: big, location: '{}'}",
			identity.Worker{Pool: "proj-test/mine", Group: "g", ID: "w"},
			parts.Machine{InstanceType: "big", Location: "{}"},
			map[string]any{
				"workerPoolId": "proj-test/mine", "providerId": "mine", "workerGroup": "g", "workerId": "w",
				"workerIdentityProof": map[string]any{"document": "c2lnbmVk"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := load(t, tt.config, "DC_LINUX_WORKER_PROVIDER_METADATA="+c.url, "DC_LINUX_WORKER_STATE="+t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			c.registered = nil
			j, leave, err := join(t.Context(), l, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer leave()
			d := l.deployment(j.Deployment)
			if diff := cmp.Diff(tt.worker, d.Worker); diff != "" {
				t.Errorf("worker (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.machine, d.Machine); diff != "" {
				t.Errorf("machine (-want +got):\n%s", diff)
			}
			delete(c.registered, "systemBootTime")
			if diff := cmp.Diff(tt.registers, c.registered); diff != "" {
				t.Errorf("registration (-want +got):\n%s", diff)
			}
			if d.RootURL != c.url || !d.Registered || j.Identity.Credentials().ClientID != "worker/1" {
				t.Errorf("deployment is %+v, credentials %v", d, j.Identity.Credentials())
			}
			if len(j.Pool) != 1 || j.Pool[0].Content["engine"] != "docker" {
				t.Errorf("the pool configures %v", j.Pool)
			}
		})
	}
}

// Whether a worker is removed, and what becomes of its machine.
func TestAtEnd(t *testing.T) {
	for _, tt := range []struct {
		config        string
		removed, host bool
	}{
		{"{}", false, false},
		{"provider: {type: google}", true, false},
		{"provider: {type: google}\nlifecycle: {atEnd: exit}", false, false},
		{"provider: {type: azure}\nlifecycle: {atEnd: powerOff}", true, true},
		{"lifecycle: {atEnd: reboot}", false, true},
		{"lifecycle: {atEnd: remove}", true, false},
	} {
		l, err := load(t, tt.config)
		if err != nil {
			t.Fatal(err)
		}
		who := identitytest.Memory{}
		err = newIdentity(membership{Identity: &who}, l.config, nil).Remove(t.Context())
		if removed := err == nil; removed != tt.removed || err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: removed: %t, %v; want %t", tt.config, removed, err, tt.removed)
		}
		host, err := newHost(l.config, parts.Hooks{Service: true})
		if err != nil || (host != nil) != tt.host {
			t.Errorf("%s: host is %v, %v; want one: %t", tt.config, host, err, tt.host)
		}
		if host, err := newHost(l.config, parts.Hooks{}); err != nil || host != nil {
			t.Errorf("%s: a command would end the use of the host: %v, %v", tt.config, host, err)
		}
	}
	client := &taskcluster.Client{}
	if got, want := newIdentity(membership{}, config{}, client), (parts.Staying{Provider: taskcluster.NewStaticIdentity(client)}); got != want {
		t.Errorf("identity of a worker with credentials is %v", got)
	}
}
