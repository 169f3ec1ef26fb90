// Command first is the first process of a container. It executes the commands of
// a task one after the other, and keeps what they print and how they end in a
// transcript, so that the task depends on no worker. Without arguments it does
// nothing but reap what other processes leave.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// exitUnusable is the exit code where there is no transcript to be used.
const exitUnusable = 121

func main() {
	// The task may have no room for more threads later: there are never more
	// than what is made here.
	runtime.GOMAXPROCS(1)
	spareThreads(5)
	c := newChildren()
	if len(os.Args) < 2 {
		// The first process of a container is spared from what it ignores.
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		c.reap()
		return
	}
	w, spec, err := transcript.Attach(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUnusable)
	}
	t := &task{w: w, spec: spec, children: c}
	go c.reap()
	go t.passSignals()
	// That a worker has ended is not told from locks that are not seen here: it
	// is looked for before the task can do anything that the worker may end at.
	go t.watchWorker(spec.Bound && w.WorkerSeen())
	t.awaitGo()
	os.Exit(t.run())
}

// spareThreads has the runtime make threads, which it keeps.
func spareThreads(n int) {
	release, ended := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread() // so that each needs one
			<-release
			runtime.UnlockOSThread()
			ended <- struct{}{}
		}()
	}
	runtime.Gosched()
	close(release)
	for range n {
		<-ended
	}
}
