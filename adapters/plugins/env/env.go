// Package env gives tasks their environment variables: those of payload.env, and
// those by which a worker tells a task where it is.
package env

import (
	"context"
	_ "embed" // the schema
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

//go:embed payload-schema.json
var schema []byte

// workdir is the one variable of the worker that only the engine knows.
const workdir = "TASK_WORKDIR"

// Config says what tasks are told of their worker. Variables of what is empty
// are not set.
type Config struct {
	RootURL      string // of the deployment, such as "https://tc.example.com"
	WorkerPool   string // "<provisioner>/<worker type>"
	WorkerGroup  string
	WorkerType   string // the second half of WorkerPool
	InstanceType string // of the cloud, such as "m5.large"
	Location     string // a JSON object, such as {"cloud":"aws","region":"us-east-1"}
	PublicIP     string
}

// Plugin sets the environment of tasks.
type Plugin struct {
	static    map[string]string
	telemetry telemetry.Telemetry
}

// New returns the plugin. Tasks continue the traces of t.
func New(c Config, t telemetry.Telemetry) *Plugin {
	static := map[string]string{
		"TASKCLUSTER_ROOT_URL":        c.RootURL,
		"TASKCLUSTER_WORKER_POOL":     c.WorkerPool,
		"TASKCLUSTER_WORKER_GROUP":    c.WorkerGroup,
		"TASKCLUSTER_WORKER_TYPE":     c.WorkerType,
		"TASKCLUSTER_INSTANCE_TYPE":   c.InstanceType,
		"TASKCLUSTER_WORKER_LOCATION": c.Location,
		"TASKCLUSTER_PUBLIC_IP":       c.PublicIP,
	}
	maps.DeleteFunc(static, func(_, value string) bool { return value == "" })
	return &Plugin{static: static, telemetry: t}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return "env" }

// PayloadSchema implements plugin.Plugin.
func (p *Plugin) PayloadSchema() []byte { return schema }

// NewTaskPlugin implements plugin.Plugin.
//
// Faults: Malformed, for a name or a value that no process could be given.
func (p *Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	var payload struct {
		Env map[string]string `json:"env"`
	}
	if err := json.Unmarshal(t.Payload, &payload); err != nil {
		return nil, fmt.Errorf("parse payload of env: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(payload.Env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, fault.Malformedf("env: %q cannot be the name of an environment variable", name)
		}
		if strings.Contains(payload.Env[name], "\x00") {
			return nil, fault.Malformedf("env: the value of %s holds a NUL character", name)
		}
	}
	return &taskPlugin{plugin: p, task: t, env: payload.Env}, nil
}

type taskPlugin struct {
	plugin *Plugin
	task   plugin.Task
	env    map[string]string
}

// BuildSandbox implements plugin.SandboxBuilder.
func (p *taskPlugin) BuildSandbox(ctx context.Context, b engine.Builder) error {
	worker := p.variables(ctx)
	all := maps.Clone(p.env)
	if all == nil {
		all = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(p.env)) {
		if _, taken := worker[name]; taken || name == workdir {
			p.task.Log.Warnf("env: %s is set by the worker, not by the payload", name)
			delete(all, name)
		}
	}
	maps.Copy(all, worker)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := b.SetEnv(name, all[name]); err != nil {
			return fmt.Errorf("set environment variable %s: %w", name, err)
		}
	}
	return nil
}

// variables returns those that the worker sets.
func (p *taskPlugin) variables(ctx context.Context) map[string]string {
	v := maps.Clone(p.plugin.static)
	v["TASK_ID"] = string(p.task.Run.Task)
	v["RUN_ID"] = strconv.Itoa(p.task.Run.Run)
	v["TASK_GROUP_ID"] = string(p.task.Definition.TaskGroupID)
	if parent := p.plugin.telemetry.Parent(ctx); parent != "" {
		v["TRACEPARENT"] = parent
	}
	return v
}

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error { return nil }
