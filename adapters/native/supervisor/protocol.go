package supervisor

import "time"

// Name is the argument zero by which the worker's binary knows that it is to be
// a supervisor.
const Name = "taskcluster-supervisor"

// The descriptors that a supervisor is started with. Descriptors from
// FirstCgroup on are those of Setup.Threads or Setup.Group.
const (
	ListenerFD  = 3 // listening Unix socket, with the worker's connection pending
	OutputFD    = 4 // file for the task's output, open for writing
	StateFD     = 5 // directory for what must outlive the supervisor
	ProgramFD   = 6 // its own program, which it was started from by this descriptor
	FirstCgroup = 7
)

// Protocol is the version of what a supervisor and a worker say to each other.
// A worker attaches to supervisors of its own version alone. What Hello says of
// the protocol and of the run has the same form in all of them.
const Protocol = 1

// ControlSocket is the name, in the state directory, of the listening socket.
const ControlSocket = "control"

// Request is a message to the supervisor. One of its fields is set.
type Request struct {
	Setup *Setup `json:"setup,omitempty"`
	Start *Start `json:"start,omitempty"`
	Kill  *Kill  `json:"kill,omitempty"`
	Stop  bool   `json:"stop,omitempty"` // tell the command to end, and execute no other
	End   bool   `json:"end,omitempty"`  // end the task, if there is one, and then the supervisor

	// Logged is how many bytes of output are in the log, from the first one on.
	// Nobody has to read them again, so that the supervisor frees them.
	// A worker that reattaches tells it at once. One that does not is of a
	// version before this, and has no backlog.
	Logged *int64 `json:"logged,omitempty"`
}

// Setup has the supervisor prepare the surroundings of a task. It is the first
// request, and answered by an Event with Ready.
type Setup struct {
	Isolated bool // the supervisor is the first process of its own PID and mount namespaces

	Hide    string   // directory of the worker, of which the task sees the way to WorkDir alone
	WorkDir string   // task directory as the task is to see it, below Hide
	Work    string   // task directory as the worker sees it
	Mounts  []Bind   // directories that the task sees in place of others
	Memory  []string // directories in place of which the task sees ones in memory
	Bytes   int64    // that each of them may hold
	Told    string   // where the task finds what it is told, as Bind.Target below Hide
	Telling string   // directory that is there, as the worker sees it

	Switch   bool   // commands run as UID and GID, rather than as the supervisor does
	UID, GID uint32 // user and group of the task
	User     string // the user's name

	Threads int  // number of descriptors of "tasks" files, in cgroup v1
	Group   bool // whether there is a descriptor of a directory, in cgroup v2

	OrphanTimeout time.Duration // for how long a task goes on without a worker; negative if it ends with the worker
	Backlog       int64         // bytes of output that may be stored and not logged; 0 for any number
}

// Bind puts the directory Source in the place of the directory Target.
type Bind struct{ Source, Target string }

// Start has the supervisor execute the commands in order, until one fails.
type Start struct {
	Run             Run
	Commands        [][]string
	Env             []string // "name=value"
	Groups          []uint32 // supplementary groups
	NoNewPrivileges bool     // set-user-id programs have no effect
}

// Run says which run a task is.
type Run struct {
	Task string
	Run  int
}

// Hello is the first thing that a supervisor with a task tells another worker
// than its first one. After it come all events from the beginning.
type Hello struct {
	Protocol int
	Run      Run

	Setup    *Setup
	Commands [][]string
	Groups   []uint32
	Elapsed  time.Duration // since the task was started

	Forgotten int64 // bytes of output, from the first one on, that were freed
}

// Kill ends the task. With a Grace, its processes get SIGTERM, and that long to
// end before SIGKILL, unless the task was told to stop before.
type Kill struct{ Grace time.Duration }

// Event is a message from the supervisor. Size is that of the output written
// when the event happened; an event without more says only that it has grown.
// To all workers, the same events happen at the same sizes.
type Event struct {
	Size      int64     `json:"size"`
	Hello     *Hello    `json:"hello,omitempty"`
	Ready     bool      `json:"ready,omitempty"`
	Failed    string    `json:"failed,omitempty"` // what kept the supervisor from being ready
	Executing *int      `json:"executing,omitempty"`
	Executed  *Executed `json:"executed,omitempty"`
	Done      *Done     `json:"done,omitempty"`
}

// Executed says how a command ended.
type Executed struct {
	Index              int
	Failed             string // why the command could not be executed; empty if it was
	ExitCode           int    // -1 if it did not exit by itself
	Signal             string // what ended it otherwise
	Killed             bool   // it did not end well, and a Kill had come by then
	User, Kernel, Wall time.Duration
	MaxRSS             int64 // bytes, of its largest process
}

// Done says how the run ended. By then, no process of the task is left.
type Done struct {
	Commands []Executed
	Killed   bool   // a Kill ended the task
	Stopped  bool   // it was told to stop before it ended
	Dropped  int64  // bytes of output that could not be stored
	Cause    string // why
}
