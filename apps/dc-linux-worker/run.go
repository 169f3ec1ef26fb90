package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/client"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/download"
	"github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker/internal/taskfile"
	"github.com/taskcluster/taskcluster-worker/apps/internal/terminal"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/command"
)

// runOptions are the flags of "run".
type runOptions struct {
	task      string // file; "-" is the standard input
	config    string
	artifacts string // directory; empty to store none
	json      bool

	runner bool // start-worker has started a worker
}

func runCommand(s command.Streams) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run TASK",
		Short: "Run one task from a file",
		Long: `Run executes the task in the file TASK, in YAML or JSON, on a queue of its own,
and exits once it is resolved. The file has a whole task definition, or only its
payload; what it does not say gets defaults. The task's log goes to standard
output as it is written.

It exits with code 0 if the task completed, 1 if it failed, 2 if it ended with an
exception or could not be run, and 64 if the command line, the file or the
configuration is wrong. An interrupt ends the task.

Taskcluster's start-worker starts workers by "run" with --with-worker-runner and no
TASK: that is the same as "start" with --with-worker-runner.`,
		Example: `  dc-linux-worker run task.yml
  dc-linux-worker run task.yml --artifacts out --json 2>task.log
  echo '{command: [[/bin/date]], maxRunTime: 60}' | dc-linux-worker run -`,
		Args: func(_ *cobra.Command, args []string) error {
			if o.runner && len(args) == 0 {
				return nil
			}
			if len(args) != 1 || o.runner {
				return fmt.Errorf("expected one TASK, a file or - for standard input, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.runner {
				return start(cmd.Context(), startOptions{config: o.config, runner: true}, s)
			}
			o.task = args[0]
			return run(cmd.Context(), o, s)
		},
	}
	command.ConfigFlag(cmd, &o.config)
	cmd.Flags().StringVarP(&o.artifacts, "artifacts", "a", "", "store the task's artifacts in the directory `DIR`")
	cmd.Flags().BoolVar(&o.runner, "with-worker-runner", false, `be a worker that start-worker starts, as by "start"`)
	cmd.Flags().BoolVar(&o.json, "json", false, "end with a line of JSON about the task on standard output; the log goes to standard error")
	return cmd
}

// run runs the task that the options name, tells how it went, and returns an
// *exit unless it completed.
func run(ctx context.Context, o runOptions, s command.Streams) (err error) {
	l, err := loadConfig(o.config, os.Environ(), "", map[string]string{"log.level": "warn", "worker.group": localGroup, "worker.pool": localPool})
	if err != nil {
		return err
	}
	def, err := readTask(o.task, s.In, taskfile.Defaults{
		TaskQueueID: l.Worker.Pool,
		MaxRunTime:  min(time.Hour, l.Worker.MaxTaskRunTime),
		Now:         time.Now(),
	})
	if err != nil {
		return err
	}
	for _, note := range def.Notes {
		_, _ = fmt.Fprintf(s.Err, "%s: %s\n", fileName(o.task), note)
	}
	l.Worker.Pool = def.TaskQueueID
	if o.artifacts != "" {
		if err := download.MakeDir(o.artifacts); err != nil {
			return &command.Exit{Code: exitException, Err: err}
		}
	}

	// A reader of the log that goes away must not end the process, which
	// would leave the task's files behind.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	status := &progress{}
	if terminal.Is(s.Err) {
		status.terminal = s.Err
	}
	logTo := s.Out
	if o.json {
		logTo = s.Err
	}
	s.Err = status.through(s.Err)

	j := job{definition: def.Definition, log: status.through(logTo), progress: status, streams: s, keep: o.artifacts}
	result, err := j.run(ctx, l)
	if refusal, ok := errors.AsType[*client.Error](err); ok {
		return refused(o.task, refusal)
	} else if err != nil {
		return &command.Exit{Code: exitException, Err: fmt.Errorf("run task: %w", err)}
	}
	if o.json {
		line, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("write result: %w", err)
		}
		if _, err := fmt.Fprintf(s.Out, "%s\n", line); err != nil {
			return &command.Exit{Code: exitException, Err: fmt.Errorf("write result: %w", err)}
		}
	}
	switch {
	case result.State == "completed" && result.unstored:
		return &command.Exit{Code: exitException}
	case result.State == "completed":
		return nil
	case result.State == "failed":
		return &command.Exit{Code: exitFailed}
	default:
		return &command.Exit{Code: exitException, Err: fmt.Errorf("task %s: %s", result.State, result.Reason)}
	}
}

// readTask reads a task from a file, or from in if that is called "-".
func readTask(name string, in io.Reader, d taskfile.Defaults) (taskfile.Task, error) {
	var content []byte
	var err error
	if name == "-" {
		content, err = io.ReadAll(in)
	} else {
		content, err = os.ReadFile(name) //nolint:gosec // the user names it
	}
	if err != nil {
		return taskfile.Task{}, fmt.Errorf("%s: cannot read the task: %s", fileName(name), reason(err))
	}
	return taskfile.Parse(fileName(name), content, d)
}

// refused says what the queue finds wrong with a task: each violation of its
// schema, or else its message.
func refused(name string, e *client.Error) error {
	var lines []string
	if _, list, ok := strings.Cut(e.Message, "\nErrors:\n"); ok {
		for line := range strings.Lines(list) {
			lines = append(lines, fileName(name)+": "+strings.TrimPrefix(strings.Trim(line, "* \n"), "data."))
		}
	}
	if len(lines) == 0 {
		first, _, _ := strings.Cut(e.Message, "\n")
		lines = []string{fileName(name) + ": the queue refuses the task: " + first}
	}
	return errors.New(strings.Join(lines, "\n"))
}

// fileName is what a task's file is called in messages.
func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// result is what became of a task, as "run --json" prints it.
type result struct {
	TaskID    task.ID         `json:"taskId"`
	RunID     int             `json:"runId"`
	State     string          `json:"state"`
	Reason    string          `json:"reason"`
	Artifacts []download.File `json:"artifacts"`
	Seconds   seconds         `json:"seconds"`

	unstored bool // an artifact or the log could not be stored
}

// seconds is how long the parts of a run took.
type seconds struct {
	Queued  float64 `json:"queued"`  // from when it was scheduled
	Prepare float64 `json:"prepare"` // until the sandbox started
	Run     float64 `json:"run"`     // until it ended
	Collect float64 `json:"collect"` // until artifacts and log were stored
	Total   float64 `json:"total"`   // from when the task was created until it was resolved
}

// reason returns why a file could not be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
