package main

import (
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// config is the whole configuration of the app.
type config struct {
	RootURL       string            `mapstructure:"rootURL" env:"TASKCLUSTER_ROOT_URL" needs:"start" pattern:"^https?://[^/?#@]+/?$" example:"https://tc.example.com" doc:"The Taskcluster deployment to work for."`
	Credentials   credentialsConfig `mapstructure:"credentials"`
	Worker        workerConfig      `mapstructure:"worker"`
	section.Linux `mapstructure:",squash"`
}

// credentialsConfig is who the worker is for Taskcluster.
type credentialsConfig struct {
	ClientID    string `mapstructure:"clientID" env:"TASKCLUSTER_CLIENT_ID" needs:"start" doc:"The worker's client. Its scopes must include queue:claim-work:[pool] and queue:worker-id:[group]/[id]."`
	AccessToken string `mapstructure:"accessToken" env:"TASKCLUSTER_ACCESS_TOKEN" needs:"start" secret:"true" doc:"The client's access token."`
	Certificate string `mapstructure:"certificate" env:"TASKCLUSTER_CERTIFICATE" secret:"true" doc:"The certificate, in JSON, where the credentials are temporary."`
}

// workerConfig is which worker this is and how much it takes on.
type workerConfig struct {
	Pool           string `mapstructure:"pool" needs:"start" pattern:"^[a-zA-Z0-9_-]{1,38}/[a-zA-Z0-9_-]{1,38}$" example:"proj-misc/linux" doc:"The worker pool, which is also the task queue to claim from."`
	Group          string `mapstructure:"group" needs:"start" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"eu-central-1" doc:"The worker group, such as a region."`
	ID             string `mapstructure:"id" computed:"the host's name" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"i-0123456789" doc:"Tells the worker from others in its group."`
	section.Worker `mapstructure:",squash"`
	Location       string `mapstructure:"location" pattern:"^{.*}$" example:"{\"cloud\":\"aws\"}" doc:"Where the worker is, as a JSON object: tasks see it as TASKCLUSTER_WORKER_LOCATION."`
	InstanceType   string `mapstructure:"instanceType" doc:"The kind of machine, such as m5.large: tasks see it as TASKCLUSTER_INSTANCE_TYPE."`
	PublicIP       string `mapstructure:"publicIP" doc:"The machine's public address: tasks see it as TASKCLUSTER_PUBLIC_IP."`
}

// settings returns the table of all settings.
func settings() *setting.Table { return setting.Of[config]("DC_LINUX_WORKER_") }
