package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/trace"
	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/verdict"
)

// restBefore has the worker start and stop, and returns what there is when it
// does not run and nothing has happened yet.
func (d *driver) restBefore(ctx context.Context) (trace.Traces, error) {
	d.worker.start()
	if err := d.awaitStart(ctx); err != nil {
		return nil, err
	}
	if err := d.worker.stop(syscall.SIGTERM, 0, true); err != nil {
		return nil, err
	}
	return d.traces(ctx)
}

// traces returns what there is now.
func (d *driver) traces(ctx context.Context) (trace.Traces, error) {
	all, err := trace.Take(d.world.watched()...)
	if err != nil || d.daemon == nil {
		return all, err
	}
	docker := func(args ...string) []string { return append([]string{"--host", d.daemon.Host()}, args...) }
	return all, errors.Join(
		all.Add(ctx, "container", "docker", docker("ps", "--all", "--format", "{{.ID}} {{.Image}} {{.Names}} {{.Status}}")...),
		all.Add(ctx, "docker network", "docker", docker("network", "ls", "--format", "{{.Name}}")...),
		all.Add(ctx, "volume", "docker", docker("volume", "ls", "--format", "{{.Name}}")...),
		all.Add(ctx, "image", "docker", docker("images", "--all", "--format", "{{.ID}} {{.Repository}}")...),
		all.Add(ctx, "rule", "nft", "list", "tables"),
	)
}

// awaitStart waits until the worker has started, for the first time.
func (d *driver) awaitStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		log, err := os.ReadFile(d.worker.log())
		if err == nil && strings.Contains(string(log), `msg="worker started"`) {
			return nil
		}
		wait(ctx, 20*time.Millisecond)
	}
	log, _ := os.ReadFile(d.worker.log())
	return fmt.Errorf("the worker does not start:\n%s", log)
}

// judge stops the worker, looks at what became of the tasks and at what is left,
// and writes all of it.
func (d *driver) judge(ctx context.Context, out io.Writer, before trace.Traces) error {
	stopErr := d.worker.stop(syscall.SIGTERM, 0, true)
	problems := d.ill // nothing is done to the worker any more
	if stopErr != nil {
		problems = append(problems, stopErr.Error())
	}
	tasks, err := d.examine(ctx)
	if err != nil {
		return err
	}
	broken := verdict.Judge(tasks)
	for _, p := range broken {
		problems = append(problems, p.String())
	}
	complaints, err := d.complaints()
	if err != nil {
		return err
	}
	left, err := d.leaks(ctx, before)
	if err != nil {
		return err
	}
	problems = append(problems, complaints...)
	for _, l := range left {
		problems = append(problems, "leaked: "+l)
	}
	d.summarize(out, tasks)
	if len(problems) == 0 {
		fmt.Fprintln(out, "chaos: zero lost, zero doubled, zero leaked")
		return nil
	}
	for _, p := range problems {
		fmt.Fprintln(out, "PROBLEM", p)
	}
	if err := d.explain(out, tasks, broken); err != nil {
		return err
	}
	return fmt.Errorf("%d problems with engine %s and seed %d", len(problems), d.options.engine, d.options.seed)
}

// examine returns what became of all tasks.
func (d *driver) examine(ctx context.Context) ([]verdict.Task, error) {
	var tasks []verdict.Task
	for _, j := range d.jobs {
		t, err := d.client.examine(ctx, j, d.ledger)
		if err != nil {
			return nil, err
		}
		for i := range t.Runs {
			t.Runs[i].Cramped = d.wasCramped(t.Runs[i])
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// grave are words in the worker's log that no fault of its surroundings
// explains.
var grave = []string{"DATA RACE", "panic:", "fatal error:", "illegal event", "a stage does not end"}

// complaints returns what the worker has logged of itself that must not be.
func (d *driver) complaints() ([]string, error) {
	var found []string
	log, err := os.ReadFile(d.worker.log())
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(log)) {
		if slices.ContainsFunc(grave, func(word string) bool { return strings.Contains(line, word) }) {
			found = append(found, "worker says: "+strings.TrimSpace(line))
		}
	}
	return found, nil
}

// leaks returns what is there and was not before. Users of tasks are kept for
// the tasks to come, but not more of them than there are sandboxes at once.
func (d *driver) leaks(ctx context.Context, before trace.Traces) ([]string, error) {
	after, err := d.traces(ctx)
	if err != nil {
		return nil, err
	}
	d.groups.Without(d.earlier)
	groups, err := d.groups.Left()
	if err != nil {
		return nil, err
	}
	var found []string
	users := 0
	for _, one := range after.Since(before) {
		switch {
		case strings.HasPrefix(one, trace.Users+" task_"):
			users++
			continue
		case strings.HasPrefix(one, trace.Files+" /run/taskcluster-worker/users/"):
			continue // what keeps others from the user
		case strings.HasPrefix(one, fmt.Sprintf("%s %d ", trace.Processes, d.queue.cmd.Process.Pid)):
			continue // it was restarted
		case d.daemon != nil && d.ofDaemon(one):
			continue
		}
		found = append(found, one)
	}
	if users > 6*capacity {
		found = append(found, fmt.Sprintf("%d users of tasks", users))
	}
	for _, g := range groups {
		if d.daemon == nil || ofContainers(g) {
			found = append(found, "control group "+g)
		}
	}
	return found, nil
}

// summarize writes the figures of the run.
func (d *driver) summarize(out io.Writer, tasks []verdict.Task) {
	runs, states := 0, map[string]int{}
	for _, t := range tasks {
		runs += len(t.Runs)
		for _, r := range t.Runs {
			states[r.State+" ("+r.Reason+")"]++
		}
	}
	fmt.Fprintf(out, "chaos: %d tasks in %d runs, %v\n", len(tasks), runs, time.Since(d.history.start).Round(time.Second))
	fmt.Fprintf(out, "chaos: %d kills of the worker\n", d.history.count(kill)+d.history.count(killAt))
	for _, list := range []map[string]int{states, d.history.counts} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			fmt.Fprintf(out, "  %4d %s\n", list[name], name)
		}
	}
	hits := d.proxy.Hits()
	for _, f := range slices.Sorted(maps.Keys(hits)) {
		fmt.Fprintf(out, "  %4d requests met %s\n", hits[f], f)
	}
}

// explained is how many tasks a failure is explained for.
const explained = 5

// explain writes what happened to tasks of which something is wrong.
func (d *driver) explain(out io.Writer, tasks []verdict.Task, broken []verdict.Problem) error {
	told := map[string]bool{}
	for _, p := range broken {
		if told[p.Task] || len(told) == explained {
			continue
		}
		told[p.Task] = true
		i := slices.IndexFunc(tasks, func(t verdict.Task) bool { return t.ID == p.Task })
		fmt.Fprintf(out, "\n--- %s (%s)\n", p.Task, p.Kind)
		for n, r := range tasks[i].Runs {
			fmt.Fprintf(out, "  run %d: %s (%s), from %s to %s\n", n, r.State, r.Reason, hour(r.Started), hour(r.Resolved))
		}
		if runs := tasks[i].Runs; len(runs) > 0 {
			fmt.Fprintln(out, "  what was done meanwhile:")
			d.history.write(out, runs[0].Started.Add(-5*time.Second), runs[len(runs)-1].Resolved.Add(5*time.Second))
			fmt.Fprintf(out, "  the last log ends with:\n%s\n", indented(runs[len(runs)-1].Log, 12))
		}
		fmt.Fprintln(out, "  the worker says:")
		if err := grep(out, d.worker.log(), p.Task, 60); err != nil {
			return err
		}
	}
	return nil
}

func hour(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// indented returns the last lines of a text.
func indented(text string, last int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-last):], "\n    ")
}

// grep writes the first lines of a file that contain a word.
func grep(out io.Writer, name, word string, limit int) (err error) {
	f, err := os.Open(name) //nolint:gosec // the suite's own
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for limit > 0 && scanner.Scan() {
		if strings.Contains(scanner.Text(), word) {
			limit--
			fmt.Fprintln(out, "   ", scanner.Text()[:min(len(scanner.Text()), 400)])
		}
	}
	return scanner.Err()
}

// ofContainers reports whether a control group is one that the worker has made
// for containers, and none that the daemon still has a process in or below.
func ofContainers(group string) bool {
	return strings.Contains(group, "/taskcluster-worker-") && !inhabited(group)
}

// inhabited reports whether there are processes in a control group, or below it.
func inhabited(group string) bool {
	processes, err := os.ReadFile(filepath.Join(group, "cgroup.procs")) //nolint:gosec // a file of the kernel
	if err == nil && len(processes) > 0 {
		return true
	}
	entries, _ := os.ReadDir(group) // it may be gone
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.IsDir() && inhabited(filepath.Join(group, e.Name()))
	})
}

// ofDaemon reports whether a trace is the Docker daemon's: its own, or what it
// has forgotten because it was killed amid a call. A container that is about to
// be made is a process called runc init, with an end of a network; nothing that
// the worker could ask tells of them.
func (d *driver) ofDaemon(one string) bool {
	kind, what, _ := strings.Cut(one, " ")
	switch kind {
	case trace.Links:
		return strings.HasPrefix(what, "veth") || strings.HasPrefix(what, "tc")
	case trace.Files:
		return strings.Contains(what, "dockertest-") || strings.HasPrefix(what, "/run/")
	case trace.Processes:
		return strings.HasSuffix(what, "runc init") || strings.Contains(what, "dockertest-") || strings.Contains(what, "containerd")
	case trace.Mounts:
		return strings.Contains(what, "dockertest-") || strings.HasPrefix(what, "/run/")
	}
	return false
}
