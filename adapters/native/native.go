// Package native is the engine that runs tasks as plain processes of the host.
//
// On Linux, each task has a user of its own when the worker is root, and always
// its own PID, mount, IPC and UTS namespaces, where the kernel allows it: it
// sees no process, no file and no temporary directory of another task. Control
// groups bound what it may use. See package supervisor for the process that
// keeps watch over it. What a sandbox needs is prepared ahead of the task and
// disposed of behind it, so that a task of a few milliseconds takes that long.
//
// A task outlives the worker's process on Linux: its supervisor goes on, and
// the next worker that uses the same directory can reattach to it. Where none is
// to come, the supervisor ends with the worker, and with it the task.
//
// There is no isolation of the network.
package native

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// Name is that of the engine's section in the configuration.
const Name = "native"

// Config configures the engine.
type Config struct {
	// Dir holds the sandboxes. It must be an absolute path, and everyone must
	// be able to pass through it, as tasks run in directories below it. One
	// worker at a time can use it.
	Dir string

	// Capacity is the number of tasks that run at once. Default: 1.
	Capacity int

	// Warm is the number of sandboxes that are kept ready for the tasks to
	// come. Each costs about a megabyte. Default: Capacity, but at most 16.
	Warm int

	// Limits is what each task may use.
	Limits Limits

	// Grace is how long a killed task has between SIGTERM and SIGKILL. With
	// none, it gets SIGKILL at once. Default: none.
	Grace time.Duration

	// OrphanTimeout is how long a task goes on without a worker, from when one
	// was killed or detached until the next one reattaches. Default: one hour.
	// Negative: it ends with the worker, since no other one is to come.
	OrphanTimeout time.Duration

	// Backlog is how much output a task may have printed that no worker has put
	// in the log yet. Beyond it the task waits, so that one without a worker
	// does not fill the disk. Default: 1 GiB. It is never less than what is
	// freed at a time twice over.
	Backlog int64

	// UserPrefix precedes a number in the names of the users that tasks run
	// as. They are made as needed, and kept. Default: "task_".
	UserPrefix string

	// NoNewPrivileges makes set-user-id programs such as sudo powerless in
	// tasks. Default: false, since tasks of other workers use sudo.
	NoNewPrivileges bool
}

// Limits is what one task may use. Zero is no limit but for the default.
type Limits struct {
	// MemoryBytes bounds memory, swap included. A task that needs more is
	// killed and fails.
	MemoryBytes int64

	// CPUs bounds processor time, in processors.
	CPUs float64

	// PIDs bounds the number of processes and threads. Default: 4096.
	PIDs int

	// SharedMemoryBytes bounds /dev/shm, which counts as memory, too.
	// Default: MemoryBytes, or half of the host's memory.
	SharedMemoryBytes int64
}

// forgetPiece is how much output that is in the log is freed at a time.
const forgetPiece = 16 << 20

func (c Config) withDefaults() Config {
	if c.Dir != "" {
		c.Dir = filepath.Clean(c.Dir) // control groups are named after it
	}
	if c.Capacity <= 0 {
		c.Capacity = 1
	}
	if c.Warm <= 0 {
		c.Warm = min(c.Capacity, 16)
	}
	if c.Limits.PIDs <= 0 {
		c.Limits.PIDs = 4096
	}
	if c.Limits.SharedMemoryBytes <= 0 {
		c.Limits.SharedMemoryBytes = c.Limits.MemoryBytes
	}
	if c.OrphanTimeout == 0 {
		c.OrphanTimeout = time.Hour
	}
	if c.Backlog <= 0 {
		c.Backlog = 1 << 30
	}
	// A task that waits must have left the worker enough to tell of.
	c.Backlog = max(c.Backlog, 2*forgetPiece)
	if c.UserPrefix == "" {
		c.UserPrefix = "task_"
	}
	return c
}

// schema is that of the engine's part of the payload, as generic-worker's.
const schema = `{
  "type": "object",
  "title": "Native engine",
  "required": ["command"],
  "properties": {
    "command": {
      "type": "array",
      "title": "Commands to run",
      "description": "Commands, each a list of the program and its arguments. They run in order, in the task directory, until one exits with another code than 0. No shell is involved unless it is the program, as in [\"/bin/bash\", \"-c\", \"make test\"].",
      "minItems": 1,
      "uniqueItems": false,
      "items": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": false,
        "items": {"type": "string"}
      }
    },
    "osGroups": {
      "type": "array",
      "title": "Groups of the task's user",
      "description": "Groups of the operating system that the task's user is to be in. Each needs the scope generic-worker:os-group:<taskQueueId>/<group>.",
      "uniqueItems": true,
      "items": {"type": "string", "minLength": 1}
    }
  }
}`

// payload is the engine's part of a task's payload.
type payload struct {
	Command  [][]string `json:"command"`
	OSGroups []string   `json:"osGroups"`
}

// parsePayload reads a payload that has been checked against the schema, and
// checks what a schema cannot express.
func parsePayload(raw []byte) (payload, error) {
	var p payload
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return payload{}, fault.Malformedf("payload: %v", err)
	}
	if len(p.Command) == 0 {
		return payload{}, fault.Malformedf("payload.command: there must be a command")
	}
	for i, argv := range p.Command {
		if len(argv) == 0 || argv[0] == "" {
			return payload{}, fault.Malformedf("payload.command[%d]: there must be a program", i)
		}
		for j, arg := range argv {
			if err := checkString(arg); err != nil {
				return payload{}, fault.Malformedf("payload.command[%d][%d]: %v", i, j, err)
			}
		}
	}
	return p, nil
}

// maxString is the longest argument or variable that Linux passes to a program,
// with its terminating zero.
const maxString = 128 << 10

func checkString(s string) error {
	if strings.Contains(s, "\x00") {
		return errors.New("there must be no zero byte")
	}
	if len(s) >= maxString {
		return fmt.Errorf("%d bytes are more than can be passed to a program, which is %d", len(s), maxString-1)
	}
	return nil
}

// checkVariable returns why there can be no environment variable like this.
func checkVariable(name, value string) error {
	if name == "" || strings.Contains(name, "=") {
		return fault.Malformedf("environment variable %q: the name must not be empty or contain '='", name)
	}
	if err := checkString(name + "=" + value); err != nil {
		return fault.Malformedf("environment variable %q: %v", name, err)
	}
	return nil
}
