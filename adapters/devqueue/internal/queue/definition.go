package queue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
)

// The bounds of a task's times.
const (
	clockDrift  = 15 * time.Minute
	maxDeadline = 5 * 24 * time.Hour
)

// Definition is a task as it was created, with all defaults filled in. Its JSON
// is what the queue answers.
type Definition struct {
	ProvisionerID string          `json:"provisionerId"`
	WorkerType    string          `json:"workerType"`
	TaskQueueID   string          `json:"taskQueueId"`
	SchedulerID   string          `json:"schedulerId"`
	ProjectID     string          `json:"projectId"`
	TaskGroupID   string          `json:"taskGroupId"`
	Dependencies  []string        `json:"dependencies"`
	Requires      string          `json:"requires"`
	Routes        []string        `json:"routes"`
	Priority      string          `json:"priority"`
	Retries       int             `json:"retries"`
	Created       api.Time        `json:"created"`
	Deadline      api.Time        `json:"deadline"`
	Expires       api.Time        `json:"expires"`
	Scopes        []string        `json:"scopes"`
	Payload       json.RawMessage `json:"payload"`
	Metadata      json.RawMessage `json:"metadata"`
	Tags          json.RawMessage `json:"tags"`
	Extra         json.RawMessage `json:"extra"`
}

// blank returns a definition that holds the defaults alone.
func blank() Definition {
	return Definition{
		SchedulerID: "-", ProjectID: "none", Requires: "all-completed", Priority: "lowest", Retries: 5,
		Dependencies: []string{}, Routes: []string{}, Scopes: []string{},
		Tags: json.RawMessage("{}"), Extra: json.RawMessage("{}"),
	}
}

// name brings the two ways to name a task queue in line.
func (d *Definition) name() error {
	split := d.ProvisionerID + "/" + d.WorkerType
	switch {
	case d.ProvisionerID != "" && d.WorkerType != "":
		if d.TaskQueueID != "" && d.TaskQueueID != split {
			return api.InputError(`taskQueueId must match "provisionerId/workerType"`)
		}
		d.TaskQueueID = split
	case d.TaskQueueID != "":
		d.ProvisionerID, d.WorkerType, _ = strings.Cut(d.TaskQueueID, "/")
	default:
		return api.InputError("at least a provisionerId and a workerType or a taskQueueId must be provided")
	}
	return nil
}

// complete fills in what depends on other properties, and checks the times.
func (d *Definition) complete(taskID string, now time.Time) error {
	if d.TaskGroupID == "" {
		d.TaskGroupID = taskID
	}
	if d.Priority == "normal" {
		d.Priority = "lowest"
	}
	if d.Expires.IsZero() {
		d.Expires.Time = d.Deadline.AddDate(1, 0, 0)
	}
	switch {
	case d.Created.Before(now.Add(-clockDrift)):
		return api.InputError("`created` cannot be in the past (max 15min drift)")
	case d.Created.After(now.Add(clockDrift)):
		return api.InputError("`created` cannot be in the future (max 15min drift)")
	case d.Created.After(d.Deadline.Time):
		return api.InputError("`deadline` cannot be later than `created`")
	case d.Deadline.Before(now):
		return api.InputError("`deadline` cannot be in the past")
	case d.Deadline.After(now.Add(maxDeadline + clockDrift)):
		return api.InputError("`deadline` cannot be more than 5 days into the future")
	case d.Deadline.After(d.Expires.Time):
		return api.InputError("`expires` cannot be before `deadline`")
	case slices.ContainsFunc(d.Scopes, func(s string) bool { return strings.HasSuffix(s, "**") }):
		return api.InputError("scopes must not end with `**`")
	}
	return nil
}

// equal reports whether two definitions say the same, whatever the order of
// their properties.
func (d *Definition) equal(other *Definition) (bool, error) {
	a, err := normal(d)
	if err != nil {
		return false, err
	}
	b, err := normal(other)
	if err != nil {
		return false, err
	}
	return reflect.DeepEqual(a, b), nil
}

func normal(d *Definition) (any, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("compare definitions: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("compare definitions: %w", err)
	}
	return value, nil
}

// priorities from high to low.
func priorities() []string {
	return []string{"highest", "very-high", "high", "medium", "low", "very-low", "lowest"}
}

// rank returns the place of a priority, 0 for the highest.
func rank(priority string) int { return max(slices.Index(priorities(), priority), 0) }

// allowing returns the priorities of which any one, in a scope, allows to
// create a task of the given priority.
func allowing(priority string) []string {
	if priority == "normal" {
		priority = "lowest"
	}
	return priorities()[:rank(priority)+1]
}
