package queue

import (
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
)

// statusView is the status of a task as the queue answers it.
type statusView struct {
	TaskID        string          `json:"taskId"`
	ProvisionerID string          `json:"provisionerId"`
	WorkerType    string          `json:"workerType"`
	TaskQueueID   string          `json:"taskQueueId"`
	SchedulerID   string          `json:"schedulerId"`
	ProjectID     string          `json:"projectId"`
	TaskGroupID   string          `json:"taskGroupId"`
	Deadline      api.Time        `json:"deadline"`
	Expires       api.Time        `json:"expires"`
	RetriesLeft   int             `json:"retriesLeft"`
	State         lifecycle.State `json:"state"`
	Runs          []runView       `json:"runs"`
}

type runView struct {
	RunID          int             `json:"runId"`
	State          lifecycle.State `json:"state"`
	ReasonCreated  string          `json:"reasonCreated"`
	ReasonResolved string          `json:"reasonResolved,omitempty"`
	WorkerGroup    string          `json:"workerGroup,omitempty"`
	WorkerID       string          `json:"workerId,omitempty"`
	TakenUntil     api.Time        `json:"takenUntil,omitzero"`
	Scheduled      api.Time        `json:"scheduled"`
	Started        api.Time        `json:"started,omitzero"`
	Resolved       api.Time        `json:"resolved,omitzero"`
}

func (t *entry) view() statusView {
	d := &t.definition
	v := statusView{
		TaskID: t.id, ProvisionerID: d.ProvisionerID, WorkerType: d.WorkerType, TaskQueueID: d.TaskQueueID,
		SchedulerID: d.SchedulerID, ProjectID: d.ProjectID, TaskGroupID: d.TaskGroupID,
		Deadline: d.Deadline, Expires: d.Expires, RetriesLeft: t.status.RetriesLeft, State: t.status.State(),
		Runs: make([]runView, 0, len(t.status.Runs)),
	}
	for i, r := range t.status.Runs {
		v.Runs = append(v.Runs, runView{
			RunID: i, State: r.State, ReasonCreated: r.ReasonCreated, ReasonResolved: r.ReasonResolved,
			WorkerGroup: r.WorkerGroup, WorkerID: r.WorkerID, TakenUntil: api.Time{Time: r.TakenUntil},
			Scheduled: api.Time{Time: r.Scheduled}, Started: api.Time{Time: r.Started}, Resolved: api.Time{Time: r.Resolved},
		})
	}
	return v
}

// answer is the answer of all calls that return a status.
func (t *entry) answer() map[string]statusView { return map[string]statusView{"status": t.view()} }

// member is one task of a listing.
type member struct {
	Status statusView `json:"status"`
	Task   Definition `json:"task"`
}
