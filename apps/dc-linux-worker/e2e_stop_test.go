package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// processes returns the ids of the processes that have arg among their arguments.
func processes(t *testing.T, arg string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for field := range bytes.SplitSeq(line, []byte{0}) {
			if string(field) == arg {
				found = append(found, filepath.Base(filepath.Dir(file)))
			}
		}
	}
	return found
}

func expectNoProcess(t *testing.T, arg string) {
	t.Helper()
	if left := processes(t, arg); len(left) > 0 {
		t.Errorf("processes with argument %s are left: %v", arg, left)
	}
}

func TestCancel(t *testing.T) {
	const poll = 200 * time.Millisecond
	b := newBench(t, "worker: {capacity: 2, pollInterval: 200ms}", devqueue.Config{})
	id := b.create(t, "command: [[/bin/sh, -c, 'setsid sleep 3600.5 & exec sleep 3600.5']]")
	eventually(t, "both processes of the task", func() bool { return len(processes(t, "3600.5")) == 2 })

	start := time.Now()
	b.cancel(t, id)
	status := b.await(t, id)
	took := time.Since(start)
	expectNoProcess(t, "3600.5")
	if status.State != "exception" || status.Runs[0].ReasonResolved != "canceled" {
		t.Errorf("task is %s (%s), want exception (canceled)", status.State, status.Runs[0].ReasonResolved)
	}
	if limit := poll + 2*time.Second; took > limit {
		t.Errorf("cancellation took %v, want less than %v", took, limit)
	}
}

func TestDeadline(t *testing.T) {
	b := newBench(t, "worker: {capacity: 2, pollInterval: 1h}", devqueue.Config{})
	deadline := time.Now().Add(1500 * time.Millisecond)
	id := b.create(t, "deadline: "+deadline.UTC().Format(time.RFC3339Nano)+"\npayload: {maxRunTime: 60, command: [[/bin/sleep, '3600.75']]}")
	eventually(t, "the task's process", func() bool { return len(processes(t, "3600.75")) == 1 })

	select {
	case <-b.reportsOf(id):
	case <-time.After(patience):
		t.Fatal("the task runs on")
	}
	expectNoProcess(t, "3600.75")
	eventually(t, "resolution by the queue", func() bool {
		status, err := b.queue.Status(t.Context(), id)
		return err == nil && status.State == "exception" && status.Runs[0].ReasonResolved == "deadline-exceeded"
	})
}
