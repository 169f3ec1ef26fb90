package section

import (
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// Lifecycle is what brings a worker to its end, besides signals. Tasks that run
// then may finish.
type Lifecycle struct {
	MaxIdle       time.Duration `mapstructure:"maxIdle" default:"0s" min:"0s" doc:"How long the worker goes on without any task; 0s is for ever."`
	MaxTasks      int           `mapstructure:"maxTasks" default:"0" min:"0" doc:"How many tasks the worker runs; 0 is any number. Those of an earlier process that it goes on with count, too."`
	MaxLife       time.Duration `mapstructure:"maxLife" default:"0s" min:"0s" doc:"How long after its start the worker takes on tasks; 0s is for ever."`
	MinDisk       setting.Bytes `mapstructure:"minDisk" computed:"no limit" min:"1MiB" doc:"With less free for a minute where state, native.dir or a Docker daemon on this machine is, the worker takes on no more tasks."`
	MinMemory     setting.Bytes `mapstructure:"minMemory" computed:"no limit" min:"1MiB" doc:"With less free for a minute, the worker takes on no more tasks. What the system can free at once counts as free."`
	AskManager    time.Duration `mapstructure:"askManager" default:"1m" min:"1s" max:"1h" doc:"How often a worker that is registered asks worker-manager whether it should terminate."`
	DrainInterval time.Duration `mapstructure:"drainInterval" default:"1s" min:"10ms" max:"1m" doc:"How often the worker looks whether it is told to drain."`
}
