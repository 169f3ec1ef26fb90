package parts

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

// Deployment is where a worker works, as whom, and on what machine.
type Deployment struct {
	RootURL     string
	Credentials task.Credentials // the zero Credentials if the worker has yet to register
	Worker      identity.Worker
	Machine     Machine

	// As is a connection with which the worker has registered, and whose
	// credentials are renewed; nil for Credentials, as they are.
	As *taskcluster.Client

	Registered bool // worker-manager keeps book of the worker

	// CancelGrace and RetryFor are those of taskcluster.Config.
	CancelGrace, RetryFor time.Duration
}

// Machine is what tasks can know of the machine. What is not known is empty.
type Machine struct {
	Location     string // a JSON object
	InstanceType string
	PublicIP     string
}

// Program is the app that works.
type Program struct {
	Name    string
	Version string
}
