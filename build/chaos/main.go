// Command chaos runs tasks through the built worker while everything around it
// fails, at moments that a seed decides: the worker is killed, the queue is
// restarted, the network breaks, the disk is full. At the end it judges what
// became of every task, and looks for what the worker has left on the machine.
//
// All of it is in namespaces of its own: the network has nothing but loopback,
// users and files are made on file systems in memory, and what still runs at
// the end goes with the namespaces.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
)

func main() {
	if isQueue() {
		os.Exit(serveQueue())
	}
	os.Exit(dockertest.Inside(inside))
}

// inside is what happens in the namespaces. It returns the exit code.
func inside() int {
	o := options{}
	flag.StringVar(&o.engine, "engine", "native", "native or docker")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64()>>12, "what decides when what happens; the default is another one each time") //nolint:gosec // chaos needs no secrecy
	flag.IntVar(&o.tasks, "tasks", 500, "how many tasks to run")
	flag.IntVar(&o.kills, "kills", 50, "how often to kill the worker")
	flag.DurationVar(&o.patience, "patience", 30*time.Minute, "how long all of it may take")
	flag.StringVar(&o.worker, "worker", ".bin/dc-linux-worker", "the program")
	flag.BoolVar(&o.clock, "clock", false, "whether the program was built by jumpclock, so that its clock can jump")
	flag.StringVar(&o.keep, "keep", "", "a directory to keep the worker's log in")
	flag.Parse()
	var err error
	if o.worker, err = filepath.Abs(o.worker); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Taskcluster's client tells of every call that fails
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// options are what a run of the suite depends on.
type options struct {
	engine   string // native or docker
	seed     uint64
	tasks    int
	kills    int
	patience time.Duration
	worker   string // the program, an absolute path
	clock    bool   // the worker's clock can jump
	keep     string // directory for the worker's log; empty for none
}
