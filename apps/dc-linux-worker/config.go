package main

import (
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// config is the whole configuration of the app.
type config struct {
	RootURL       string            `mapstructure:"rootURL" env:"TASKCLUSTER_ROOT_URL" needs:"start" when:"provider.type=none,static" pattern:"^https?://[^/?#@]+/?$" example:"https://tc.example.com" doc:"The Taskcluster deployment to work for."`
	Credentials   credentialsConfig `mapstructure:"credentials"`
	Provider      providerConfig    `mapstructure:"provider"`
	Worker        workerConfig      `mapstructure:"worker"`
	Lifecycle     lifecycleConfig   `mapstructure:"lifecycle"`
	section.Linux `mapstructure:",squash"`
}

// credentialsConfig is who the worker is for Taskcluster.
type credentialsConfig struct {
	ClientID    string `mapstructure:"clientID" env:"TASKCLUSTER_CLIENT_ID" needs:"start" when:"provider.type=none" doc:"The worker's client. Its scopes must include queue:claim-work:[pool] and queue:worker-id:[group]/[id]."`
	AccessToken string `mapstructure:"accessToken" env:"TASKCLUSTER_ACCESS_TOKEN" needs:"start" when:"provider.type=none" secret:"true" doc:"The client's access token."`
	Certificate string `mapstructure:"certificate" env:"TASKCLUSTER_CERTIFICATE" secret:"true" doc:"The certificate, in JSON, where the credentials are temporary."`
}

// providerConfig is how the worker proves to worker-manager who it is.
type providerConfig struct {
	Type     string `mapstructure:"type" default:"none" oneof:"none static google azure" doc:"How the worker registers with worker-manager: not at all, since it has credentials; by a secret; or by what the metadata service of Google's or Azure's cloud says of the machine, which also knows rootURL, worker.pool and worker.group."`
	ID       string `mapstructure:"id" needs:"start" when:"provider.type=static" example:"static" doc:"worker-manager's name of the provider, where the metadata service does not know it."`
	Secret   string `mapstructure:"secret" needs:"start" when:"provider.type=static" secret:"true" pattern:"^[a-zA-Z0-9_-]{44}$" doc:"The staticSecret of this worker, of 44 characters."`
	Metadata string `mapstructure:"metadata" computed:"the cloud's" pattern:"^https?://[^/?#@]+$" example:"http://169.254.169.254" doc:"Where the metadata service is."`
}

// lifecycleConfig is what ends the worker, and what then becomes of its host.
type lifecycleConfig struct {
	section.Lifecycle `mapstructure:",squash"`
	Preemption        string `mapstructure:"preemption" computed:"provider.type, if that is a cloud" oneof:"none google azure" doc:"Whose metadata service is asked whether the machine is preempted, restarted or taken away."`
	AtEnd             string `mapstructure:"atEnd" computed:"remove, if provider.type is a cloud, else exit" oneof:"exit remove powerOff reboot" doc:"What becomes of the machine when the worker has stopped, for whatever reason: nothing; worker-manager is told to take it away; that, and it is turned off; it is restarted."`
}

// workerConfig is which worker this is and how much it takes on.
type workerConfig struct {
	Pool           string `mapstructure:"pool" needs:"start" when:"provider.type=none,static" pattern:"^[a-zA-Z0-9_-]{1,38}/[a-zA-Z0-9_-]{1,38}$" example:"proj-misc/linux" doc:"The worker pool, which is also the task queue to claim from."`
	Group          string `mapstructure:"group" needs:"start" when:"provider.type=none,static" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"eu-central-1" doc:"The worker group, such as a region."`
	ID             string `mapstructure:"id" computed:"the host's name; with provider.type google or azure, the machine's" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"i-0123456789" doc:"Tells the worker from others in its group."`
	section.Worker `mapstructure:",squash"`
	Location       string `mapstructure:"location" pattern:"^{.*}$" example:"{\"cloud\":\"aws\"}" doc:"Where the worker is, as a JSON object: tasks see it as TASKCLUSTER_WORKER_LOCATION."`
	InstanceType   string `mapstructure:"instanceType" doc:"The kind of machine, such as m5.large: tasks see it as TASKCLUSTER_INSTANCE_TYPE."`
	PublicIP       string `mapstructure:"publicIP" doc:"The machine's public address: tasks see it as TASKCLUSTER_PUBLIC_IP."`
}

// settings returns the table of all settings.
func settings() *setting.Table { return setting.Of[config]("DC_LINUX_WORKER_") }
