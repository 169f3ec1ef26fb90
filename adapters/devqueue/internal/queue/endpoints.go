package queue

import (
	"regexp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
)

// API returns the endpoints of the service.
func (q *Queue) API() api.Service {
	identifier := regexp.MustCompile(`^[a-zA-Z0-9-_]{1,38}$`)
	slug := regexp.MustCompile(`^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$`)
	endpoints := append(q.taskEndpoints(), q.workEndpoints()...)
	endpoints = append(endpoints, q.artifactEndpoints()...)
	endpoints = append(endpoints, q.workerEndpoints()...)
	return api.Service{Name: "queue", Endpoints: endpoints, Params: map[string]*regexp.Regexp{
		"taskId": slug, "taskGroupId": slug, "provisionerId": identifier, "workerType": identifier,
		"workerGroup": identifier, "workerId": identifier,
		"taskQueueId": regexp.MustCompile(`^[A-Za-z0-9_-]{1,38}/[A-Za-z0-9_-]{1,38}$`),
		"runId":       regexp.MustCompile(`^[0-9]{1,4}$`),
		"name":        regexp.MustCompile(`^[\x20-\x7e]+$`),
	}}
}

// onTask returns the scopes for a verb on a task: any of three ways.
func onTask(verb string) api.Expression {
	return api.AnyOf{
		api.Scope("queue:" + verb + "-task:<schedulerId>/<taskGroupId>/<taskId>"),
		api.Scope("queue:" + verb + "-task-in-project:<projectId>"),
		api.AllOf{api.Scope("queue:" + verb + "-task"), api.Scope("assume:scheduler-id:<schedulerId>/<taskGroupId>")},
	}
}

func (q *Queue) taskEndpoints() []api.Endpoint {
	create := api.AllOf{
		api.Each{For: "scope", In: "scopes", Scope: "<scope>"},
		api.Each{For: "route", In: "routes", Scope: "queue:route:<route>"},
		api.Scope("queue:create-task:project:<projectId>"),
		api.Scope("queue:scheduler-id:<schedulerId>"),
		api.AnyOf{api.Each{For: "priority", In: "priorities", Scope: "queue:create-task:<priority>:<provisionerId>/<workerType>"}},
	}
	return []api.Endpoint{
		{Name: "task", Method: "GET", Route: "/task/<taskId>", Scopes: api.Scope("queue:get-task:<taskId>"), Serve: q.task},
		{Name: "status", Method: "GET", Route: "/task/<taskId>/status", Scopes: api.Scope("queue:status:<taskId>"), Serve: q.status},
		{Name: "createTask", Method: "PUT", Route: "/task/<taskId>", Scopes: create, Input: "queue/task", Serve: q.createTask},
		{Name: "scheduleTask", Method: "POST", Route: "/task/<taskId>/schedule", Scopes: onTask("schedule"), Serve: q.scheduleTask},
		{Name: "rerunTask", Method: "POST", Route: "/task/<taskId>/rerun", Scopes: onTask("rerun"), Serve: q.rerunTask},
		{Name: "cancelTask", Method: "POST", Route: "/task/<taskId>/cancel", Scopes: onTask("cancel"), Serve: q.cancelTask},
		{Name: "listTaskGroup", Method: "GET", Route: "/task-group/<taskGroupId>/list", Scopes: api.Scope("queue:list-task-group:<taskGroupId>"), Serve: q.listTaskGroup},
		{Name: "listDependentTasks", Method: "GET", Route: "/task/<taskId>/dependents", Scopes: api.Scope("queue:list-dependent-tasks:<taskId>"), Serve: q.listDependentTasks},
	}
}

func (q *Queue) workEndpoints() []api.Endpoint {
	const run = "/task/<taskId>/runs/<runId>"
	identity := api.Scope("queue:worker-id:<workerGroup>/<workerId>")
	resolve := api.Scope("queue:resolve-task:<taskId>/<runId>")
	return []api.Endpoint{
		{Name: "claimWork", Method: "POST", Route: "/claim-work/<taskQueueId*>", Scopes: api.AllOf{api.Scope("queue:claim-work:<taskQueueId>"), identity}, Input: "queue/claim-work", Serve: q.claimWork},
		{Name: "claimTask", Method: "POST", Route: run + "/claim", Scopes: api.AllOf{api.Scope("queue:claim-task:<provisionerId>/<workerType>"), identity}, Input: "queue/claim-task", Serve: q.claimTask},
		{Name: "reclaimTask", Method: "POST", Route: run + "/reclaim", Scopes: api.Scope("queue:reclaim-task:<taskId>/<runId>"), Serve: q.reclaimTask},
		{Name: "reportCompleted", Method: "POST", Route: run + "/completed", Scopes: resolve, Serve: q.reportCompleted},
		{Name: "reportFailed", Method: "POST", Route: run + "/failed", Scopes: resolve, Serve: q.reportFailed},
		{Name: "reportException", Method: "POST", Route: run + "/exception", Scopes: resolve, Input: "queue/exception", Serve: q.reportException},
	}
}

func (q *Queue) artifactEndpoints() []api.Endpoint {
	const task, run = "/task/<taskId>", "/task/<taskId>/runs/<runId>"
	create := api.Scope("queue:create-artifact:<taskId>/<runId>")
	get := api.AllOf{api.Each{For: "name", In: "names", Scope: "queue:get-artifact:<name>"}}
	list, listLatest := api.Scope("queue:list-artifacts:<taskId>:<runId>"), api.Scope("queue:list-artifacts:<taskId>")
	return []api.Endpoint{
		{Name: "createArtifact", Method: "POST", Route: run + "/artifacts/<name*>", Scopes: create, Input: "queue/artifact", Serve: q.createArtifact},
		{Name: "finishArtifact", Method: "PUT", Route: run + "/artifacts/<name*>", Scopes: create, Input: "queue/finish-artifact", Serve: q.finishArtifact},
		{Name: "listArtifacts", Method: "GET", Route: run + "/artifacts", Scopes: list, Serve: q.listArtifacts},
		{Name: "listLatestArtifacts", Method: "GET", Route: task + "/artifacts", Scopes: listLatest, Serve: q.listArtifacts},
		{Name: "getArtifact", Method: "GET", Route: run + "/artifacts/<name*>", Scopes: get, Serve: q.getArtifact},
		{Name: "getLatestArtifact", Method: "GET", Route: task + "/artifacts/<name*>", Scopes: get, Serve: q.getArtifact},
		{Name: "artifactInfo", Method: "GET", Route: run + "/artifact-info/<name*>", Scopes: list, Serve: q.artifactInfo},
		{Name: "latestArtifactInfo", Method: "GET", Route: task + "/artifact-info/<name*>", Scopes: listLatest, Serve: q.artifactInfo},
		{Name: "artifact", Method: "GET", Route: run + "/artifact-content/<name*>", Scopes: get, Serve: q.artifactContent},
		{Name: "latestArtifact", Method: "GET", Route: task + "/artifact-content/<name*>", Scopes: get, Serve: q.artifactContent},
	}
}

func (q *Queue) workerEndpoints() []api.Endpoint {
	const workerType = "/provisioners/<provisionerId>/worker-types/<workerType>"
	const id = "<provisionerId>/<workerType>/<workerGroup>/<workerId>"
	return []api.Endpoint{
		{Name: "pendingTasks", Method: "GET", Route: "/pending/<taskQueueId*>", Scopes: api.Scope("queue:pending-count:<taskQueueId>"), Serve: q.pendingTasks},
		{Name: "listTaskQueues", Method: "GET", Route: "/task-queues", Scopes: api.Scope("queue:list-task-queues"), Serve: q.listTaskQueues},
		{Name: "getTaskQueue", Method: "GET", Route: "/task-queues/<taskQueueId*>", Scopes: api.Scope("queue:get-task-queue:<taskQueueId>"), Serve: q.getTaskQueue},
		{Name: "listWorkers", Method: "GET", Route: workerType + "/workers", Scopes: api.Scope("queue:list-workers:<provisionerId>/<workerType>"), Serve: q.listWorkers},
		{Name: "getWorker", Method: "GET", Route: workerType + "/workers/<workerGroup>/<workerId>", Scopes: api.Scope("queue:get-worker:" + id), Serve: q.getWorker},
		{Name: "quarantineWorker", Method: "PUT", Route: workerType + "/workers/<workerGroup>/<workerId>", Scopes: api.Scope("queue:quarantine-worker:" + id), Input: "queue/quarantine", Serve: q.quarantineWorker},
		{Name: "declareWorker", Method: "PUT", Route: workerType + "/<workerGroup>/<workerId>", Scopes: api.AllOf{api.Each{For: "property", In: "properties", Scope: "queue:declare-worker:" + id + "#<property>"}}, Input: "queue/declare-worker", Serve: q.declareWorker},
	}
}
