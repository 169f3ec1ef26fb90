// Package exitstatus lets tasks say what their exit codes mean, in
// payload.onExitStatus.
package exitstatus

import (
	"context"
	_ "embed" // the schema
	"encoding/json"
	"fmt"
	"slices"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

//go:embed payload-schema.json
var schema []byte

// Config is empty: there is nothing for an operator to choose.
type Config struct{}

// Plugin resolves runs by exit code.
type Plugin struct{}

// New returns the plugin.
func New(Config) *Plugin { return &Plugin{} }

// Name implements plugin.Plugin.
func (*Plugin) Name() string { return "exitStatus" }

// PayloadSchema implements plugin.Plugin.
func (*Plugin) PayloadSchema() []byte { return schema }

// NewTaskPlugin implements plugin.Plugin. There is no need of the plugin where
// no exit code means another run.
func (*Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	// A schema takes 3.0 and 3e0 for integers, which Go's int does not.
	var payload struct {
		OnExitStatus struct {
			Retry []float64 `json:"retry"`
		} `json:"onExitStatus"`
	}
	if err := json.Unmarshal(t.Payload, &payload); err != nil {
		return nil, fmt.Errorf("parse payload of exitStatus: %w", err)
	}
	if len(payload.OnExitStatus.Retry) == 0 {
		return nil, nil
	}
	return &taskPlugin{retry: payload.OnExitStatus.Retry}, nil
}

type taskPlugin struct{ retry []float64 }

// Stopped implements plugin.Stopper. What the worker killed did not choose its
// exit code.
//
// Faults: Intermittent.
func (p *taskPlugin) Stopped(_ context.Context, r engine.ResultSet) error {
	result := r.Result()
	if result.Success || result.Killed || !slices.Contains(p.retry, float64(result.ExitCode)) {
		return nil
	}
	return fault.Intermittentf("exit code %d is listed in payload.onExitStatus.retry: the run is resolved as intermittent-task",
		result.ExitCode)
}

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error { return nil }
