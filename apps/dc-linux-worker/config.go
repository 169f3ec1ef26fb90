package main

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// config is the whole configuration of the app. All that is said of a setting
// anywhere, in messages, schema and manual, comes from its tags, which package
// setting explains.
type config struct {
	RootURL     string            `mapstructure:"rootURL" env:"TASKCLUSTER_ROOT_URL" needs:"start" pattern:"^https?://[^/?#@]+/?$" example:"https://tc.example.com" doc:"The Taskcluster deployment to work for."`
	Credentials credentialsConfig `mapstructure:"credentials"`
	Worker      workerConfig      `mapstructure:"worker"`
	Engine      string            `mapstructure:"engine" default:"native" oneof:"native docker" doc:"What executes tasks: processes of their own users, or containers."`
	Native      nativeConfig      `mapstructure:"native"`
	Docker      dockerConfig      `mapstructure:"docker"`
	Fetch       fetchConfig       `mapstructure:"fetch"`
	Env         requiredConfig    `mapstructure:"env"`
	MaxRunTime  requiredConfig    `mapstructure:"maxRunTime"`
	ExitStatus  pluginConfig      `mapstructure:"exitStatus"`
	Artifacts   artifactsConfig   `mapstructure:"artifacts"`
	Caches      cachesConfig      `mapstructure:"caches"`
	TaskLog     requiredConfig    `mapstructure:"taskLog"`
	Log         logConfig         `mapstructure:"log"`
}

// credentialsConfig is who the worker is for Taskcluster.
type credentialsConfig struct {
	ClientID    string `mapstructure:"clientID" env:"TASKCLUSTER_CLIENT_ID" needs:"start" doc:"The worker's client. Its scopes must include queue:claim-work:[pool] and queue:worker-id:[group]/[id]."`
	AccessToken string `mapstructure:"accessToken" env:"TASKCLUSTER_ACCESS_TOKEN" needs:"start" secret:"true" doc:"The client's access token."`
	Certificate string `mapstructure:"certificate" env:"TASKCLUSTER_CERTIFICATE" secret:"true" doc:"The certificate, in JSON, where the credentials are temporary."`
}

// workerConfig is which worker this is and how much it takes on.
type workerConfig struct {
	Pool           string        `mapstructure:"pool" needs:"start" pattern:"^[a-zA-Z0-9_-]{1,38}/[a-zA-Z0-9_-]{1,38}$" example:"proj-misc/linux" doc:"The worker pool, which is also the task queue to claim from."`
	Group          string        `mapstructure:"group" needs:"start" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"eu-central-1" doc:"The worker group, such as a region."`
	ID             string        `mapstructure:"id" computed:"the host's name" pattern:"^[a-zA-Z0-9_-]{1,38}$" example:"i-0123456789" doc:"Tells the worker from others in its group."`
	Capacity       int           `mapstructure:"capacity" default:"1" min:"1" max:"250" doc:"How many tasks run at once."`
	MaxTaskRunTime time.Duration `mapstructure:"maxTaskRunTime" default:"24h" min:"1s" max:"120h" doc:"The greatest maxRunTime that a task may ask for."`
	PollInterval   time.Duration `mapstructure:"pollInterval" default:"30s" min:"100ms" max:"1h" doc:"How often the queue is asked whether running tasks were canceled."`
	Location       string        `mapstructure:"location" pattern:"^{.*}$" example:"{\"cloud\":\"aws\"}" doc:"Where the worker is, as a JSON object: tasks see it as TASKCLUSTER_WORKER_LOCATION."`
	InstanceType   string        `mapstructure:"instanceType" doc:"The kind of machine, such as m5.large: tasks see it as TASKCLUSTER_INSTANCE_TYPE."`
	PublicIP       string        `mapstructure:"publicIP" doc:"The machine's public address: tasks see it as TASKCLUSTER_PUBLIC_IP."`
}

// nativeConfig is that of the native engine.
type nativeConfig struct {
	Dir             string        `mapstructure:"dir" computed:"/var/lib/dc-linux-worker for root, else in the user's cache directory; in run and dev, a temporary directory" pattern:"^/" example:"/var/lib/dc-linux-worker" doc:"Where task directories are made. One worker at a time can use it, and every user must be able to pass through it."`
	Limits          limitsConfig  `mapstructure:"limits"`
	Grace           time.Duration `mapstructure:"grace" default:"0s" min:"0s" max:"10m" doc:"How long a task that is ended has between SIGTERM and SIGKILL."`
	NoNewPrivileges bool          `mapstructure:"noNewPrivileges" default:"false" doc:"Whether set-user-id programs such as sudo are powerless in tasks."`
}

// limitsConfig is what each task may use.
type limitsConfig struct {
	Memory       setting.Bytes `mapstructure:"memory" computed:"no limit" min:"16MiB" doc:"Memory, with swap. A task that needs more is killed and fails."`
	CPU          float64       `mapstructure:"cpu" computed:"no limit" min:"0.01" doc:"Processors."`
	PIDs         int           `mapstructure:"pids" default:"4096" min:"16" doc:"Processes and threads."`
	SharedMemory setting.Bytes `mapstructure:"sharedMemory" computed:"as memory" min:"1MiB" doc:"What fits into /dev/shm, which counts as memory too."`
}

// dockerConfig is that of the docker engine.
type dockerConfig struct {
	Host          string           `mapstructure:"host" computed:"DOCKER_HOST, or else unix:///var/run/docker.sock" example:"unix:///var/run/docker.sock" doc:"Where the Docker daemon's API is. The worker must be on the same host."`
	Instance      string           `mapstructure:"instance" computed:"worker.pool and worker.id" doc:"Tells containers, networks and volumes of this worker from those of other workers on the same daemon."`
	Limits        dockerLimits     `mapstructure:"limits"`
	Grace         time.Duration    `mapstructure:"grace" default:"0s" min:"0s" max:"10m" doc:"How long a task that is ended has between SIGTERM and SIGKILL."`
	NewPrivileges bool             `mapstructure:"newPrivileges" default:"false" doc:"Whether set-user-id programs such as sudo have power in tasks."`
	Egress        string           `mapstructure:"egress" default:"internet" oneof:"open internet none" doc:"How far networks of tasks reach: wherever the host does, public addresses alone, or nowhere. Other tasks and the metadata services of clouds are out of reach in any case."`
	Addresses     string           `mapstructure:"addresses" default:"10.213.0.0/16" pattern:"^[0-9.]+/[0-9]+$" example:"10.213.0.0/16" doc:"The addresses that networks of tasks are made of, 8 for each."`
	Runtime       string           `mapstructure:"runtime" computed:"the daemon's" example:"runsc" doc:"What runs containers, as the daemon calls it."`
	UserNamespace string           `mapstructure:"userNamespace" doc:"As in docker run --userns, such as host where the daemon remaps users."`
	Allow         dockerAllow      `mapstructure:"allow"`
	Pull          string           `mapstructure:"pull" default:"always" oneof:"always missing" doc:"Whether a registry is asked for an image that is there already, since its tag may have moved."`
	Preload       []string         `mapstructure:"preload" doc:"Images to pull before the first task."`
	MinFree       setting.Bytes    `mapstructure:"minFree" default:"5GiB" doc:"With less free on the daemon's disk, images that the worker has brought are removed, the one used longest ago first."`
	Registries    []registryConfig `mapstructure:"registries" doc:"Accounts at registries. Tasks can use the images, but see no credentials."`
}

// dockerLimits is what each container may use.
type dockerLimits struct {
	Memory       setting.Bytes `mapstructure:"memory" computed:"no limit" min:"16MiB" doc:"Memory, with swap. A task that needs more is killed and fails."`
	CPU          float64       `mapstructure:"cpu" computed:"no limit" min:"0.01" doc:"Processors."`
	PIDs         int           `mapstructure:"pids" default:"4096" min:"16" doc:"Processes and threads."`
	SharedMemory setting.Bytes `mapstructure:"sharedMemory" computed:"the daemon's" min:"1MiB" doc:"What fits into /dev/shm."`
	Disk         setting.Bytes `mapstructure:"disk" computed:"no limit" min:"1MiB" doc:"What fits into the container's file system, where the daemon's storage driver can limit it."`
	OpenFiles    int           `mapstructure:"openFiles" computed:"the daemon's" min:"64" doc:"Open files of a process."`
}

// dockerAllow is what tasks may have that have the scopes for it, too.
type dockerAllow struct {
	Privileged       bool `mapstructure:"privileged" default:"false" doc:"Privileged containers. They have power over the host."`
	DisableSeccomp   bool `mapstructure:"disableSeccomp" default:"false" doc:"Containers without a filter of system calls."`
	Ptrace           bool `mapstructure:"ptrace" default:"false" doc:"Tracing of processes."`
	KVM              bool `mapstructure:"kvm" default:"false" doc:"/dev/kvm."`
	LoopbackVideo    bool `mapstructure:"loopbackVideo" default:"false" doc:"Virtual cameras."`
	LoopbackAudio    bool `mapstructure:"loopbackAudio" default:"false" doc:"Virtual sound cards."`
	HostSharedMemory bool `mapstructure:"hostSharedMemory" default:"false" doc:"The host's /dev/shm."`
}

// registryConfig is an account at a registry.
type registryConfig struct {
	Host     string `mapstructure:"host" needs:"entry" example:"registry.example.com:5000" doc:"As in names of images; docker.io for Docker Hub."`
	Username string `mapstructure:"username" needs:"entry" doc:"Who the worker is there."`
	Password string `mapstructure:"password" needs:"entry" secret:"true" doc:"The password, or a token."`
}

// fetchConfig is about what is fetched for tasks.
type fetchConfig struct {
	Loopback bool `mapstructure:"loopback" default:"false" doc:"Whether URLs in payloads may be on the worker's own host."`
}

// cachesConfig is that of the plugin that keeps caches.
type cachesConfig struct {
	Enabled bool   `mapstructure:"enabled" default:"true" doc:"Whether tasks can have caches. Those that ask for some where it is disabled, or where the engine has none, are malformed."`
	Table   string `mapstructure:"table" computed:"/var/lib/dc-linux-worker/caches.json for root, else in the user's cache directory; in run and dev, with the rest" pattern:"^/" example:"/var/lib/dc-linux-worker/caches.json" doc:"The file that says which caches there are."`
}

// pluginConfig is that of a plugin which a pool can do without.
type pluginConfig struct {
	Enabled bool `mapstructure:"enabled" default:"true" doc:"Whether tasks can use the plugin. Those that ask for it where it is disabled are malformed."`
}

// requiredConfig is that of a plugin without which a worker does not work.
type requiredConfig struct {
	Enabled bool `mapstructure:"enabled" default:"true" oneof:"true" doc:"Always true: no worker does without this plugin."`
}

// artifactsConfig is that of the plugin that uploads artifacts.
type artifactsConfig struct {
	Enabled     bool   `mapstructure:"enabled" default:"true" doc:"Whether tasks can have artifacts. Those that ask for some where it is disabled are malformed."`
	StorageType string `mapstructure:"storageType" default:"s3" oneof:"s3 object" doc:"How the deployment stores artifacts, logs among them."`
}

// logConfig is that of the worker's own log, which goes to standard error.
type logConfig struct {
	Format string `mapstructure:"format" computed:"text on a terminal, else json" oneof:"text json" doc:"The form of the worker's own log."`
	Level  string `mapstructure:"level" computed:"info; in run, warn" oneof:"debug info warn error" doc:"The least important messages in the worker's own log."`
}

// settings returns the table of all settings.
func settings() *setting.Table { return setting.Of[config]("DC_LINUX_WORKER_") }
