package taskcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

// WorkerManager is the service that starts, counts and retires workers. Its
// methods are about the configured worker, and make one attempt unless they say
// otherwise.
type WorkerManager struct{ c *Client }

// NewWorkerManager returns the worker manager of c's deployment.
func NewWorkerManager(c *Client) *WorkerManager { return &WorkerManager{c} }

// Proof is what a worker registers with.
type Proof struct {
	ProviderID string
	Identity   json.RawMessage // of a form that depends on the provider
	BootTime   time.Time       // of the host; unknown if zero
}

// Registration is what a worker gets for its proof, or for its last secret.
type Registration struct {
	Credentials task.Credentials
	Expires     time.Time       // of the credentials
	Config      json.RawMessage // of the pool; only of a first registration
	Secret      string          // for the next registration
}

// registration is a Registration as it comes.
type registration struct {
	Expires      time.Time       `json:"expires"`
	Credentials  credentials     `json:"credentials"`
	WorkerConfig json.RawMessage `json:"workerConfig"`
	Secret       string          `json:"secret"`
}

func (r registration) registration() Registration {
	return Registration{
		Credentials: task.Credentials(r.Credentials),
		Expires:     r.Expires, Config: r.WorkerConfig, Secret: r.Secret,
	}
}

// Register registers the worker.
func (w *WorkerManager) Register(ctx context.Context, p Proof) (Registration, error) {
	body := struct {
		WorkerPoolID string          `json:"workerPoolId"`
		ProviderID   string          `json:"providerId"`
		WorkerGroup  string          `json:"workerGroup"`
		WorkerID     string          `json:"workerId"`
		Proof        json.RawMessage `json:"workerIdentityProof"`
		BootTime     *tcclient.Time  `json:"systemBootTime,omitempty"`
	}{w.c.cfg.TaskQueueID, p.ProviderID, w.c.cfg.WorkerGroup, w.c.cfg.WorkerID, p.Identity, nil}
	if !p.BootTime.IsZero() && !w.c.noBootTime.Load() {
		at := tcclient.Time(p.BootTime)
		body.BootTime = &at
	}
	var answer registration
	register := call{
		service: "worker-manager", name: "registerWorker", method: http.MethodPost,
		path: "/worker/register", in: &body, out: &answer,
	}
	err := w.c.do(ctx, register)
	if body.BootTime != nil && refusesProperty(err, "systemBootTime") {
		w.c.noBootTime.Store(true)
		body.BootTime = nil
		err = w.c.do(ctx, register)
	}
	return answer.registration(), err
}

// Reregister exchanges the secret of the last registration for a new one. An
// UnreachableError leaves open whether the secret has been used up.
func (w *WorkerManager) Reregister(ctx context.Context, secret string) (Registration, error) {
	var answer registration
	err := w.c.do(ctx, call{
		service: "worker-manager", name: "reregisterWorker", method: http.MethodPost,
		path: "/worker/reregister", creds: w.c.credentials(), out: &answer,
		in: struct {
			WorkerPoolID string `json:"workerPoolId"`
			WorkerGroup  string `json:"workerGroup"`
			WorkerID     string `json:"workerId"`
			Secret       string `json:"secret"`
		}{w.c.cfg.TaskQueueID, w.c.cfg.WorkerGroup, w.c.cfg.WorkerID, secret},
	})
	return answer.registration(), err
}

// Remove has the worker's host terminated. It retries transient errors.
func (w *WorkerManager) Remove(ctx context.Context) error {
	return w.c.repeat(ctx, call{
		service: "worker-manager", name: "removeWorker", method: http.MethodDelete,
		path: w.path(""), creds: w.c.credentials(),
	})
}

// ReportError reports an error of the worker.
func (w *WorkerManager) ReportError(ctx context.Context, r identity.Report) error {
	if r.Extra == nil {
		r.Extra = map[string]any{}
	}
	return w.c.do(ctx, call{
		service: "worker-manager", name: "reportWorkerError", method: http.MethodPost,
		path: segments("/worker-pool-errors/", w.c.cfg.TaskQueueID), creds: w.c.credentials(),
		in: struct {
			WorkerGroup string         `json:"workerGroup"`
			WorkerID    string         `json:"workerId"`
			Kind        string         `json:"kind"`
			Title       string         `json:"title"`
			Description string         `json:"description"`
			Extra       map[string]any `json:"extra"`
		}{w.c.cfg.WorkerGroup, w.c.cfg.WorkerID, r.Kind, r.Title, r.Description, r.Extra},
	})
}

// ShouldTerminate returns whether the worker should finish and terminate, and
// why. It retries transient errors.
//
// Errors: [errors.ErrUnsupported], if the deployment has no opinion, being too
// old or not knowing the worker; and as of any call.
func (w *WorkerManager) ShouldTerminate(ctx context.Context) (terminate bool, reason string, err error) {
	var answer struct {
		Terminate bool   `json:"terminate"`
		Reason    string `json:"reason"`
	}
	err = w.c.repeat(ctx, call{
		service: "worker-manager", name: "shouldWorkerTerminate", method: http.MethodGet,
		path: w.path("/should-terminate"), creds: w.c.credentials(), out: &answer,
	})
	if status(err) == http.StatusNotFound {
		return false, "", fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return answer.Terminate, answer.Reason, err
}

func (w *WorkerManager) path(suffix string) string {
	return segments("/workers/", w.c.cfg.TaskQueueID, "/", w.c.cfg.WorkerGroup, "/", w.c.cfg.WorkerID) + suffix
}
