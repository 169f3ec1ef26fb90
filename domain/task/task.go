// Package task describes tasks as a queue hands them to a worker. It performs
// no I/O.
package task

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// ID identifies a task: 22 characters of URL-safe base64 (a slugid).
type ID string

// RunID identifies one attempt to execute a task.
type RunID struct {
	Task ID
	Run  int
}

// String returns "<task id>/<run>", the form used in scopes and logs.
func (r RunID) String() string { return string(r.Task) + "/" + strconv.Itoa(r.Run) }

// Definition is what a worker acts upon of a task's definition. Raw is the
// definition as it came, for whoever must pass it on unchanged.
type Definition struct {
	Raw json.RawMessage `json:"-"`

	TaskQueueID  string          `json:"taskQueueId"`
	SchedulerID  string          `json:"schedulerId"`
	TaskGroupID  ID              `json:"taskGroupId"`
	Dependencies []ID            `json:"dependencies"`
	Created      time.Time       `json:"created"`
	Deadline     time.Time       `json:"deadline"`
	Expires      time.Time       `json:"expires"`
	Scopes       Scopes          `json:"scopes"`
	Payload      json.RawMessage `json:"payload"`
	Metadata     Metadata        `json:"metadata"`
}

// Metadata says what a task is for and who answers for it.
type Metadata struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Owner       string `json:"owner"`
	Source      string `json:"source"`
}

// Parse reads a definition as it is in the queue's answers. Properties that a
// worker does not act upon are kept in Raw alone.
func Parse(raw []byte) (Definition, error) {
	d := Definition{Raw: append(json.RawMessage(nil), raw...)}
	// Queues of before taskQueueId hand out its two halves.
	old := struct {
		ProvisionerID string `json:"provisionerId"`
		WorkerType    string `json:"workerType"`
	}{}
	if err := json.Unmarshal(raw, &d); err != nil {
		return Definition{}, fmt.Errorf("parse task definition: %w", err)
	}
	if err := json.Unmarshal(raw, &old); err != nil {
		return Definition{}, fmt.Errorf("parse task definition: %w", err)
	}
	if d.TaskQueueID == "" && old.ProvisionerID != "" {
		d.TaskQueueID = old.ProvisionerID + "/" + old.WorkerType
	}
	return d, nil
}

// Credentials are Taskcluster credentials. Those of a claim are temporary and
// good for one run. The zero Credentials sign nothing.
type Credentials struct {
	ClientID    string
	AccessToken string
	Certificate string // JSON; empty for permanent credentials
}

// String hides the access token and the certificate, so that logging
// credentials by mistake gives nothing away.
func (c Credentials) String() string { return "credentials of " + c.ClientID }

// GoString is String, for %#v.
func (c Credentials) GoString() string { return c.String() }
