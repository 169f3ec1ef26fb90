// Package section has the sections that configurations of apps are composed of,
// and reads them. All that is said of a setting anywhere, in messages, schema and
// manual, comes from its tags, which package setting explains.
package section

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// Linux is what there is to configure about every worker for Linux, but for who
// it is and how much it takes on.
type Linux struct {
	State      string    `mapstructure:"state" computed:"state in native.dir; run and dev have a directory of their own" pattern:"^/" example:"/srv/state" doc:"The directory for what the next process has to know of running tasks: the journal, and task logs. One worker at a time can use it; its content is secret."`
	Engine     string    `mapstructure:"engine" default:"native" oneof:"native docker" doc:"What executes tasks: processes of their own users, or containers."`
	Native     Native    `mapstructure:"native"`
	Docker     Docker    `mapstructure:"docker"`
	Fetch      Fetch     `mapstructure:"fetch"`
	Env        Required  `mapstructure:"env"`
	MaxRunTime Required  `mapstructure:"maxRunTime"`
	ExitStatus Plugin    `mapstructure:"exitStatus"`
	Artifacts  Artifacts `mapstructure:"artifacts"`
	Caches     Caches    `mapstructure:"caches"`
	TaskLog    Required  `mapstructure:"taskLog"`
	Log        Log       `mapstructure:"log"`
}

// StateDir returns the directory for the worker's state.
func (l Linux) StateDir() string { return cmp.Or(l.State, filepath.Join(l.Native.Dir, "state")) }

// Worker is how much a worker takes on.
type Worker struct {
	Capacity       int           `mapstructure:"capacity" default:"1" min:"1" max:"250" doc:"How many tasks run at once."`
	MaxTaskRunTime time.Duration `mapstructure:"maxTaskRunTime" default:"24h" min:"1s" max:"120h" doc:"The greatest maxRunTime that a task may ask for."`
	MaxLog         setting.Bytes `mapstructure:"maxLog" default:"4GiB" doc:"What the log of a task takes of the disk at most; 0 is no limit. Of a longer one the head and the end are kept, with a line that says how much is missing."`
	PollInterval   time.Duration `mapstructure:"pollInterval" default:"30s" min:"100ms" max:"1h" doc:"How often the queue is asked whether running tasks were canceled."`
	ShutdownGrace  time.Duration `mapstructure:"shutdownGrace" default:"30s" min:"1s" max:"24h" doc:"How long whoever stops the worker with SIGTERM waits until it ends the process."`
	StopLead       time.Duration `mapstructure:"stopLead" default:"5m" min:"0s" max:"24h" doc:"How long before the host goes away running tasks are stopped, which may finish until then."`
	TaskGrace      time.Duration `mapstructure:"taskGrace" default:"30s" min:"0s" max:"1h" doc:"How long a task that is told to stop has until it is killed, if half of the time that is left is not less."`
}

// Fetch is about what is fetched for tasks.
type Fetch struct {
	Loopback bool `mapstructure:"loopback" default:"false" doc:"Whether URLs in payloads may be on the worker's own host."`
}

// Log is that of the worker's own log, which goes to standard error.
type Log struct {
	Format string `mapstructure:"format" computed:"text on a terminal, journal under systemd, else json" oneof:"text json journal" doc:"The form of the worker's own log: journal is JSON with the priorities of systemd's journal."`
	Level  string `mapstructure:"level" computed:"info; in run, warn" oneof:"debug info warn error" doc:"The least important messages in the worker's own log."`
}
