package main

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// config is the whole configuration of the app.
type config struct {
	RootURL       string          `mapstructure:"rootURL" env:"TASKCLUSTER_ROOT_URL" computed:"that of the user data" pattern:"^https?://[^/?#@]+/?$" example:"https://tc.example.com" doc:"The Taskcluster deployment to work for."`
	Provider      providerConfig  `mapstructure:"provider"`
	Worker        workerConfig    `mapstructure:"worker"`
	Lifecycle     lifecycleConfig `mapstructure:"lifecycle"`
	section.Linux `mapstructure:",squash"`
}

// providerConfig is how the worker proves to worker-manager who it is.
type providerConfig struct {
	ID     string `mapstructure:"id" computed:"that of the user data" example:"community-tc-workers-aws" doc:"worker-manager's name of the provider."`
	Secret string `mapstructure:"secret" secret:"true" doc:"The staticSecret of this worker, where the provider is one of static workers. Without it, the proof is the instance identity document."`
}

// workerConfig is which worker this is, besides the instance's id, and how much
// it takes on.
type workerConfig struct {
	Pool           string `mapstructure:"pool" computed:"that of the user data" pattern:"^[a-zA-Z0-9_-]{1,38}/[a-zA-Z0-9_-]{1,38}$" example:"proj-misc/linux" doc:"The worker pool, which is also the task queue to claim from."`
	Group          string `mapstructure:"group" computed:"that of the user data, or else the region" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"eu-central-1" doc:"The worker group."`
	section.Worker `mapstructure:",squash"`
}

// lifecycleConfig is what ends the worker, and what then becomes of the instance.
type lifecycleConfig struct {
	section.Lifecycle `mapstructure:",squash"`
	Rebalance         bool          `mapstructure:"rebalance" default:"true" doc:"Whether the worker takes on no more tasks once EC2 recommends to replace the instance, since it is at a higher risk of interruption. Running tasks finish."`
	ScaleIn           time.Duration `mapstructure:"scaleIn" default:"2m" min:"1s" max:"48h" doc:"How long the instance lives that its auto-scaling group is terminating: as long as the group's life-cycle hooks make it wait."`
	AtEnd             string        `mapstructure:"atEnd" default:"powerOff" oneof:"powerOff remove exit" doc:"What becomes of the instance when the worker has stopped, for whatever reason: worker-manager is told to terminate it, and it is turned off; the former alone; nothing."`
}

// What can become of the instance.
const (
	endPowerOff = "powerOff"
	endExit     = "exit"
)

// settings returns the table of all settings.
func settings() *setting.Table { return setting.Of[config]("EC2_SPOT_WORKER_") }

// ofTheMachine are the settings that a worker needs before it knows what its
// pool configures, and sections of such.
var ofTheMachine = []string{"rootURL", "provider", "worker.pool", "worker.group", "state", "native.dir"}

// loaded is a configuration and where its values come from.
type loaded struct {
	config
	values setting.Values
}

// load reads the configuration from any sources.
//
// Errors: setting.Problems, with all that is wrong.
func load(from setting.Sources) (loaded, error) {
	table := settings()
	values, err := table.LoadFrom(from, "", section.Defaults(app))
	if err != nil {
		return loaded{}, err
	}
	l := loaded{values: values}
	return l, section.Fill(&l.config, table, values)
}
