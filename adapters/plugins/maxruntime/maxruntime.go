// Package maxruntime bounds the time that the commands of a task take, by
// payload.maxRunTime.
package maxruntime

import (
	"context"
	_ "embed" // the schema
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

//go:embed payload-schema.json
var schema []byte

// Config is what an operator may choose.
type Config struct {
	// MaxTaskRunTime is the most that a task may ask for, in seconds. Zero is
	// no limit.
	MaxTaskRunTime int64
}

// Plugin kills what runs for too long.
type Plugin struct {
	max int64
	log *slog.Logger
}

// New returns the plugin.
func New(c Config, log *slog.Logger) *Plugin { return &Plugin{max: c.MaxTaskRunTime, log: log} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return "maxRunTime" }

// PayloadSchema implements plugin.Plugin.
func (p *Plugin) PayloadSchema() []byte { return schema }

// NewTaskPlugin implements plugin.Plugin.
//
// Faults: Malformed, if the task asks for more time than the worker grants.
func (p *Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	// A schema takes 60.0 and 6e1 for integers, which Go's int does not.
	var payload struct {
		MaxRunTime float64 `json:"maxRunTime"`
	}
	if err := json.Unmarshal(t.Payload, &payload); err != nil {
		return nil, fmt.Errorf("parse payload of maxRunTime: %w", err)
	}
	if p.max > 0 && payload.MaxRunTime > float64(p.max) {
		return nil, fault.Malformedf("maxRunTime: the task asks for %.0f seconds, but this worker's maxTaskRunTime is %d seconds",
			payload.MaxRunTime, p.max)
	}
	limit := time.Duration(math.MaxInt64)
	if payload.MaxRunTime < limit.Seconds() {
		limit = time.Duration(payload.MaxRunTime) * time.Second
	}
	return &taskPlugin{log: p.log, task: t, limit: limit}, nil
}

type taskPlugin struct {
	log   *slog.Logger
	task  plugin.Task
	limit time.Duration
	spent time.Duration // of the limit, before the watch begins

	stop context.CancelFunc // ends the watch; nil before it begins
	done sync.WaitGroup
}

// Started implements plugin.Starter. The watch outlives ctx: being canceled is no
// reason to run on.
func (p *taskPlugin) Started(ctx context.Context, s engine.Sandbox) error {
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.done.Go(func() { p.watch(ctx, s) })
	return nil
}

// Resumed implements plugin.Resumer: what has passed of the time is gone.
func (p *taskPlugin) Resumed(ctx context.Context, s engine.Sandbox, started time.Time) error {
	p.spent = max(time.Since(started), 0)
	return p.Started(ctx, s)
}

// watch kills the sandbox after the limit, unless ctx is done before.
func (p *taskPlugin) watch(ctx context.Context, s engine.Sandbox) {
	const pause = time.Second // before a kill that failed is tried again
	timer := time.NewTimer(max(p.limit-p.spent, 0))
	defer timer.Stop()
	for said := false; ; timer.Reset(pause) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if !said {
			p.say(pause)
			said = true
		}
		err := s.Kill(ctx)
		if err == nil {
			return
		}
		p.log.ErrorContext(ctx, "could not kill sandbox that exceeds its max run time",
			slog.String("run", p.task.Run.String()), slog.Any("error", err))
	}
}

// say says in the log why the task ends, before it does. A log that stalls must
// not hold up the kill for longer than patience.
func (p *taskPlugin) say(patience time.Duration) {
	said := make(chan struct{})
	p.done.Go(func() {
		defer close(said)
		p.task.Log.Errorf("Task aborted - max run time exceeded (%.0f seconds)", p.limit.Seconds())
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-said:
	case <-timer.C:
	}
}

// Stopped implements plugin.Stopper.
func (p *taskPlugin) Stopped(context.Context, engine.ResultSet) error { return p.Close() }

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error {
	if p.stop != nil {
		p.stop()
	}
	p.done.Wait()
	return nil
}
