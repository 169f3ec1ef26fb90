// Command ec2-spot-worker runs Taskcluster tasks on an instance in EC2 that may
// be taken away at any time.
package main

import (
	"context"
	"os"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

func main() {
	// The binary is started again, under another name, to watch over a task.
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	streams := command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(execute(context.Background(), os.Args[1:], streams))
}
