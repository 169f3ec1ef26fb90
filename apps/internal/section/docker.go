package section

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// Docker is that of the docker engine.
type Docker struct {
	Host          string        `mapstructure:"host" computed:"DOCKER_HOST, or else unix:///var/run/docker.sock" example:"unix:///var/run/docker.sock" doc:"Where the Docker daemon's API is. The worker must be on the same host."`
	Instance      string        `mapstructure:"instance" computed:"the worker's pool and id" doc:"Tells containers, networks and volumes of this worker from those of other workers on the same daemon."`
	Limits        DockerLimits  `mapstructure:"limits"`
	Grace         time.Duration `mapstructure:"grace" default:"0s" min:"0s" max:"10m" doc:"How long a task that is ended has between SIGTERM and SIGKILL."`
	NewPrivileges bool          `mapstructure:"newPrivileges" default:"false" doc:"Whether set-user-id programs such as sudo have power in tasks."`
	Egress        string        `mapstructure:"egress" default:"internet" oneof:"open internet none" doc:"How far networks of tasks reach: wherever the host does, public addresses alone, or nowhere. Other tasks and the metadata services of clouds are out of reach in any case."`
	Addresses     string        `mapstructure:"addresses" default:"10.213.0.0/16" pattern:"^[0-9.]+/[0-9]+$" example:"10.213.0.0/16" doc:"The addresses that networks of tasks are made of, 8 for each."`
	Runtime       string        `mapstructure:"runtime" computed:"the daemon's" example:"runsc" doc:"What runs containers, as the daemon calls it."`
	UserNamespace string        `mapstructure:"userNamespace" doc:"As in docker run --userns, such as host where the daemon remaps users."`
	Allow         DockerAllow   `mapstructure:"allow"`
	Devices       DockerDevices `mapstructure:"devices"`
	Pull          string        `mapstructure:"pull" default:"always" oneof:"always missing" doc:"Whether a registry is asked for an image that is there already, since its tag may have moved."`
	Preload       []string      `mapstructure:"preload" doc:"Images to pull before the first task."`
	MinFree       setting.Bytes `mapstructure:"minFree" default:"5GiB" doc:"With less free on the daemon's disk, images that the worker has brought are removed, the one used longest ago first."`
	Registries    []Registry    `mapstructure:"registries" doc:"Accounts at registries. Tasks can use the images, but see no credentials."`
}

// DockerLimits is what each container may use.
type DockerLimits struct {
	Memory       setting.Bytes `mapstructure:"memory" computed:"no limit" min:"16MiB" doc:"Memory, with swap. A task that needs more is killed and fails."`
	CPU          float64       `mapstructure:"cpu" computed:"no limit" min:"0.01" doc:"Processors."`
	PIDs         int           `mapstructure:"pids" default:"4096" min:"16" doc:"Processes and threads."`
	SharedMemory setting.Bytes `mapstructure:"sharedMemory" computed:"the daemon's" min:"1MiB" doc:"What fits into /dev/shm."`
	Disk         setting.Bytes `mapstructure:"disk" computed:"no limit" min:"1MiB" doc:"What fits into the container's file system, where the daemon's storage driver can limit it."`
	OpenFiles    int           `mapstructure:"openFiles" computed:"the daemon's" min:"64" doc:"Open files of a process."`
}

// DockerAllow is what tasks may have that have the scopes for it, too.
type DockerAllow struct {
	Privileged       bool `mapstructure:"privileged" default:"false" doc:"Privileged containers. They have power over the host."`
	DisableSeccomp   bool `mapstructure:"disableSeccomp" default:"false" doc:"Containers without a filter of system calls."`
	Ptrace           bool `mapstructure:"ptrace" default:"false" doc:"Tracing of processes."`
	KVM              bool `mapstructure:"kvm" default:"false" doc:"/dev/kvm."`
	LoopbackVideo    bool `mapstructure:"loopbackVideo" default:"false" doc:"Virtual cameras."`
	LoopbackAudio    bool `mapstructure:"loopbackAudio" default:"false" doc:"Virtual sound cards."`
	HostSharedMemory bool `mapstructure:"hostSharedMemory" default:"false" doc:"The host's /dev/shm."`
}

// DockerDevices are devices that one task has at a time.
type DockerDevices struct {
	Video []string `mapstructure:"video" computed:"all /dev/video*" doc:"Virtual cameras, where they are allowed: a task that asks for one has it for itself."`
	Audio []string `mapstructure:"audio" computed:"all /dev/snd/controlC*" doc:"Virtual sound cards, where they are allowed, each by its control device: a task that asks for one has it for itself."`
	GPUs  []string `mapstructure:"gpus" doc:"GPUs, by index or UUID, for tasks that have the scope: each has as many as it asks for, for itself."`
}

// Registry is an account at a registry.
type Registry struct {
	Host     string `mapstructure:"host" needs:"entry" example:"registry.example.com:5000" doc:"As in names of images, maybe with the first part of their path; docker.io for Docker Hub."`
	Username string `mapstructure:"username" needs:"entry" doc:"Who the worker is there."`
	Password string `mapstructure:"password" needs:"entry" secret:"true" doc:"The password, or a token."`
	Public   bool   `mapstructure:"public" default:"false" doc:"Whether every task may use what the account can read, without the scope docker-worker:image:<name>."`
}
