// Package workermanager is the part of Taskcluster's worker-manager service
// that workers call, with providers for static workers and for those in EC2.
package workermanager

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"regexp"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// credentialLife is how long the credentials of a worker are good for, unless
// its pool says otherwise.
const credentialLife = 96 * time.Hour

// pool is a worker pool.
type pool struct {
	ProviderID   string          `json:"providerId"`
	Description  string          `json:"description"`
	Config       json.RawMessage `json:"config"`
	Owner        string          `json:"owner"`
	EmailOnError bool            `json:"emailOnError"`
	Created      api.Time        `json:"created"`
	LastModified api.Time        `json:"lastModified"`
}

// worker is a worker of a pool.
type worker struct {
	ProviderID   string   `json:"providerId"`
	StaticSecret string   `json:"staticSecret"`
	Secret       string   `json:"secret"` // for the next reregistration
	State        string   `json:"state"`
	Capacity     int      `json:"capacity"`
	Created      api.Time `json:"created"`
	Expires      api.Time `json:"expires"`
	LastModified api.Time `json:"lastModified"`
}

// The states of a worker.
const (
	requested = "requested"
	running   = "running"
	stopped   = "stopped"
)

const (
	pools   store.Bucket[pool]           = "worker-pool"        // by id
	workers store.Bucket[worker]         = "worker-pool-worker" // <worker pool>/<worker group>/<worker>
	faults  store.Bucket[map[string]any] = "worker-pool-error"  // <worker pool>/<time>/<id>
)

// Service is the service.
type Service struct {
	db        *store.DB
	authority *auth.Authority
}

// New returns the service over the pools and workers in db.
func New(db *store.DB, authority *auth.Authority) *Service { return &Service{db, authority} }

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	const poolRoute, id = "/worker-pool/<workerPoolId*>", "<workerPoolId>/<workerGroup>/<workerId>"
	const workerRoute = "/workers/<workerPoolId*>:/<workerGroup>/<workerId>"
	const removeRoute = "/workers/<workerPoolId*>/<workerGroup>/<workerId>"
	identifier := regexp.MustCompile(`^[a-zA-Z0-9-_]{1,38}$`)
	manage := api.AllOf{api.Scope("worker-manager:manage-worker-pool:<workerPoolId>"), api.Scope("worker-manager:provider:<providerId>")}
	return api.Service{
		Name: "worker-manager",
		Endpoints: []api.Endpoint{
			{Name: "createWorkerPool", Method: "PUT", Route: poolRoute, Scopes: manage, Input: "worker-manager/create-pool", Serve: s.createPool},
			{Name: "updateWorkerPool", Method: "POST", Route: poolRoute, Scopes: manage, Input: "worker-manager/update-pool", Serve: s.updatePool},
			{Name: "workerPool", Method: "GET", Route: poolRoute, Scopes: api.Scope("worker-manager:get-worker-pool:<workerPoolId>"), Serve: s.pool},
			{Name: "listWorkerPools", Method: "GET", Route: "/worker-pools", Scopes: api.Scope("worker-manager:list-worker-pools"), Serve: s.listPools},
			{Name: "createWorker", Method: "PUT", Route: workerRoute, Scopes: api.Scope("worker-manager:create-worker:" + id), Input: "worker-manager/worker", Serve: s.createWorker},
			{Name: "worker", Method: "GET", Route: workerRoute, Scopes: api.Scope("worker-manager:get-worker:" + id), Serve: s.worker},
			{Name: "removeWorker", Method: "DELETE", Route: removeRoute, Scopes: api.Scope("worker-manager:remove-worker:" + id), Serve: s.removeWorker},
			// Later deployments than v44 let a worker ask whether to go.
			{Name: "shouldWorkerTerminate", Method: "GET", Route: removeRoute + "/should-terminate", Scopes: api.Scope("worker-manager:should-worker-terminate:" + id), Serve: s.shouldTerminate},
			{Name: "registerWorker", Method: "POST", Route: "/worker/register", Input: "worker-manager/register", Serve: s.register},
			{Name: "reregisterWorker", Method: "POST", Route: "/worker/reregister", Scopes: api.Scope("worker-manager:reregister-worker:" + id), Input: "worker-manager/reregister", Serve: s.reregister},
			{Name: "reportWorkerError", Method: "POST", Route: "/worker-pool-errors/<workerPoolId*>", Scopes: api.AllOf{api.Scope("assume:worker-pool:<workerPoolId>"), api.Scope("assume:worker-id:<workerGroup>/<workerId>")}, Input: "worker-manager/error", Serve: s.reportError},
			{Name: "listWorkerPoolErrors", Method: "GET", Route: "/worker-pool-errors/<workerPoolId*>", Scopes: api.Scope("worker-manager:list-worker-pool-errors:<workerPoolId>"), Serve: s.listErrors},
		},
		Params: map[string]*regexp.Regexp{
			"workerPoolId": regexp.MustCompile(`^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$`),
			"workerGroup":  identifier, "workerId": identifier,
		},
	}
}

// find returns a worker of a pool, or an api.NotFound.
func find(tx *store.Tx, poolID, group, id string) (worker, error) {
	w, known, err := workers.Get(tx, poolID+"/"+group+"/"+id)
	if err == nil && !known {
		err = api.NotFound("Worker %s/%s in worker pool %s does not exist", group, id, poolID)
	}
	return w, err
}

// registration is what a worker gets when it proves who it is.
func (s *Service) registration(poolID, group, id string, w worker, expires time.Time) (map[string]any, error) {
	name := poolID + "/" + group + "/" + id
	credentials, err := s.authority.Issue("worker/"+w.ProviderID+"/"+name, time.Now().Add(-15*time.Minute), expires,
		"assume:worker-type:"+poolID,
		"assume:worker-pool:"+poolID,
		"assume:worker-id:"+group+"/"+id,
		"queue:worker-id:"+group+"/"+id,
		"secrets:get:worker-type:"+poolID,
		"secrets:get:worker-pool:"+poolID,
		"queue:claim-work:"+poolID,
		"worker-manager:remove-worker:"+name,
		"worker-manager:reregister-worker:"+name,
		"worker-manager:should-worker-terminate:"+name,
	)
	return map[string]any{"expires": api.Date(expires), "credentials": api.View(credentials), "secret": w.Secret}, err
}

// same compares secrets in constant time.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (s *Service) register(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		WorkerPoolID string `json:"workerPoolId"`
		ProviderID   string `json:"providerId"`
		WorkerGroup  string `json:"workerGroup"`
		WorkerID     string `json:"workerId"`
		Proof        proof  `json:"workerIdentityProof"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	secret, err := auth.Token()
	if err != nil {
		return nil, err
	}
	var w worker
	config := struct {
		WorkerConfig json.RawMessage `json:"workerConfig"`
		Lifecycle    struct {
			Reregistration float64 `json:"reregistrationTimeout"` // seconds
		} `json:"lifecycle"`
	}{WorkerConfig: json.RawMessage("{}")}
	err = s.db.Update(func(tx *store.Tx) error {
		p, known, err := pools.Get(tx, input.WorkerPoolID)
		switch {
		case err != nil:
			return err
		case !known:
			return api.NotFound("Worker pool %s does not exist", input.WorkerPoolID)
		case p.ProviderID != input.ProviderID:
			return api.InputError("Worker pool %s not associated with provider %s", input.WorkerPoolID, input.ProviderID)
		}
		if w, err = find(tx, input.WorkerPoolID, input.WorkerGroup, input.WorkerID); err != nil {
			return err
		}
		if w.Expires.Before(time.Now()) {
			return api.InputError("Worker %s/%s has expired", input.WorkerGroup, input.WorkerID)
		}
		if err := w.accept(input.Proof, input.WorkerGroup, input.WorkerID); err != nil {
			return err
		}
		if err := json.Unmarshal(p.Config, &config); err != nil {
			return api.InputError("the configuration of worker pool %s is malformed: %v", input.WorkerPoolID, err)
		}
		w.Secret = secret
		return workers.Put(tx, input.WorkerPoolID+"/"+input.WorkerGroup+"/"+input.WorkerID, w)
	})
	if err != nil {
		return nil, err
	}
	life := credentialLife
	if n := config.Lifecycle.Reregistration; n > 0 {
		life = time.Duration(n * float64(time.Second))
	}
	answer, err := s.registration(input.WorkerPoolID, input.WorkerGroup, input.WorkerID, w, time.Now().Add(life))
	if err != nil {
		return nil, err
	}
	answer["workerConfig"] = config.WorkerConfig
	return answer, nil
}

func (s *Service) reregister(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		WorkerPoolID string `json:"workerPoolId"`
		WorkerGroup  string `json:"workerGroup"`
		WorkerID     string `json:"workerId"`
		Secret       string `json:"secret"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	err := c.Authorize(api.Params{"workerPoolId": input.WorkerPoolID, "workerGroup": input.WorkerGroup, "workerId": input.WorkerID})
	if err != nil {
		return nil, err
	}
	secret, err := auth.Token()
	if err != nil {
		return nil, err
	}
	var w worker
	err = s.db.Update(func(tx *store.Tx) error {
		w, err = find(tx, input.WorkerPoolID, input.WorkerGroup, input.WorkerID)
		if err != nil || w.Secret == "" || !same(w.Secret, input.Secret) {
			return api.InputError("Could not generate credentials for this secret")
		}
		w.Secret = secret
		return workers.Put(tx, input.WorkerPoolID+"/"+input.WorkerGroup+"/"+input.WorkerID, w)
	})
	if err != nil {
		return nil, err
	}
	return s.registration(input.WorkerPoolID, input.WorkerGroup, input.WorkerID, w, time.Now().Add(credentialLife))
}
