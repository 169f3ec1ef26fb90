// Command dc-linux-worker runs Taskcluster tasks on Linux: as a worker of a
// deployment, or from files, on a queue of its own.
package main

import (
	"context"
	"os"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/apps/internal/heir"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

func main() {
	// The binary is started again, under another name, to watch over a task or
	// over a worker.
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if heir.Invoked() {
		os.Exit(heir.Main())
	}
	streams := command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(execute(context.Background(), os.Args[1:], streams))
}
