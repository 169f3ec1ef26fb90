package workermanager

import (
	"encoding/json"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
)

// amazon is the provider of pools in EC2. Of its workers one says by createWorker
// that they were requested, since the service starts none by itself.
const amazon = "aws"

// proof is what a worker registers with: of a static pool, the secret that it
// shares with the service; in EC2, the instance identity document with Amazon's
// signature.
type proof struct {
	StaticSecret string `json:"staticSecret"`
	Document     string `json:"document"`
	Signature    string `json:"signature"`
}

// accept has the worker, of a group and with an id, be running if the proof is
// one of it.
func (w *worker) accept(p proof, group, id string) error {
	if w.ProviderID == amazon {
		return w.acceptInstance(p, group, id)
	}
	switch {
	case w.State != running:
		return api.InputError("worker is not running")
	case p.StaticSecret == "":
		return api.InputError("missing staticSecret in workerIdentityProof")
	case !same(p.StaticSecret, w.StaticSecret):
		return api.InputError("bad staticSecret in workerIdentityProof")
	default:
		return nil
	}
}

// acceptInstance accepts an instance in EC2, once. The service does not know
// Amazon's keys, so that any signature is as good as another: whoever can call a
// server for development can be any worker of it.
func (w *worker) acceptInstance(p proof, group, id string) error {
	if w.State != requested {
		return api.InputError("This worker is either stopped or running. No need to register")
	}
	if p.Document == "" || p.Signature == "" {
		return api.InputError("Request must include both a document (string) and a signature")
	}
	var d struct {
		InstanceID string `json:"instanceId"`
		Region     string `json:"region"`
	}
	if err := json.Unmarshal([]byte(p.Document), &d); err != nil || d.InstanceID != id || d.Region != group {
		return api.InputError("Instance validation error")
	}
	w.State = running
	return nil
}
