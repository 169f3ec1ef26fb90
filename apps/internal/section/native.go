package section

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// Native is that of the native engine.
type Native struct {
	Dir             string        `mapstructure:"dir" computed:"for root, the directory of the program's name in /var/lib, else in the user's cache directory; in run and dev, a temporary directory" pattern:"^/" example:"/srv/tasks" doc:"Where task directories are made. One worker at a time can use it, and every user must be able to pass through it."`
	Limits          NativeLimits  `mapstructure:"limits"`
	Grace           time.Duration `mapstructure:"grace" default:"0s" min:"0s" max:"10m" doc:"How long a task that is ended has between SIGTERM and SIGKILL."`
	NoNewPrivileges bool          `mapstructure:"noNewPrivileges" default:"false" doc:"Whether set-user-id programs such as sudo are powerless in tasks."`
}

// NativeLimits is what each task may use.
type NativeLimits struct {
	Memory       setting.Bytes `mapstructure:"memory" computed:"no limit" min:"16MiB" doc:"Memory, with swap. A task that needs more is killed and fails."`
	CPU          float64       `mapstructure:"cpu" computed:"no limit" min:"0.01" doc:"Processors."`
	PIDs         int           `mapstructure:"pids" default:"4096" min:"16" doc:"Processes and threads."`
	SharedMemory setting.Bytes `mapstructure:"sharedMemory" computed:"as memory" min:"1MiB" doc:"What fits into /dev/shm, which counts as memory too."`
}
