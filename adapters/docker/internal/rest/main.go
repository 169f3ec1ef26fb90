// Command rest is the first process of a container in which commands are
// executed one after the other: it does nothing but reap what they leave, and
// pass SIGTERM on to them.
package main

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

func main() {
	ended, stop := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	// The first process of a container is spared from what it does not handle.
	signal.Notify(stop, syscall.SIGTERM)
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	for {
		select {
		case <-ended:
			reap()
		case <-stop:
			terminate()
		}
	}
}

func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
	}
}

// terminate sends SIGTERM to what is executed in the container from outside, and
// thus has no parent in it.
func terminate() {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	for _, name := range files {
		stat, err := os.ReadFile(name) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // it has ended
		}
		// The name of the program, in parentheses, may contain anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && pid != os.Getpid() && len(fields) > 1 && string(fields[1]) == "0" {
			_ = syscall.Kill(pid, syscall.SIGTERM) // fails if it has ended
		}
	}
}
