// Package artifacts publishes the files that tasks name in payload.artifacts.
package artifacts

import (
	"cmp"
	"context"
	_ "embed" // the schema
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

//go:embed payload-schema.json
var schema []byte

// What a Config is by default.
const (
	DefaultParallel = 6
	DefaultMaxFiles = 100_000
)

// Config is what an operator may choose.
type Config struct {
	// TempDir is where large files are compressed to; the system's directory
	// for temporary files if empty. They are uploaded without it too, for
	// twice the time.
	TempDir string

	// Parallel is how many artifacts of a run are uploaded at once,
	// DefaultParallel if zero.
	Parallel int

	// MaxFiles is how many files the artifacts of a run may consist of,
	// DefaultMaxFiles if zero. A run with more has failed.
	MaxFiles int
}

// Plugin publishes artifacts.
type Plugin struct{ config Config }

// New returns the plugin.
func New(c Config) *Plugin {
	if c.Parallel <= 0 {
		c.Parallel = DefaultParallel
	}
	if c.MaxFiles <= 0 {
		c.MaxFiles = DefaultMaxFiles
	}
	return &Plugin{config: c}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return "artifacts" }

// PayloadSchema implements plugin.Plugin.
func (p *Plugin) PayloadSchema() []byte { return schema }

// NewTaskPlugin implements plugin.Plugin. There is no need of the plugin where
// nothing is to be published.
//
// Faults: Malformed, for artifacts that contradict each other or the task.
func (p *Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	entries, err := parse(t.Payload, t.Definition)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return &taskPlugin{config: p.config, task: t, entries: entries, settled: map[string]bool{}}, nil
}

// entry is one of payload.artifacts, with its defaults.
type entry struct {
	Type            string `json:"type"`
	Path            string `json:"path"`
	Name            string `json:"name"`
	Expires         string `json:"expires"`
	ContentType     string `json:"contentType"`
	ContentEncoding string `json:"contentEncoding"`
	Optional        bool   `json:"optional"`
	OnInterruption  string `json:"onInterruption"`

	expires time.Time
}

func parse(payload []byte, d task.Definition) ([]entry, error) {
	var parsed struct {
		Artifacts []entry `json:"artifacts"`
	}
	if err := json.Unmarshal(payload, &parsed); err != nil {
		return nil, fmt.Errorf("parse payload of artifacts: %w", err)
	}
	entries := parsed.Artifacts
	first := map[string]int{} // of the files of a name
	seen := map[entry]int{}
	for i := range entries {
		e := &entries[i]
		if other, ok := seen[*e]; ok {
			return nil, fault.Malformedf("artifacts[%d]: is the same as artifacts[%d], of the name %q", i, other, cmp.Or(e.Name, e.Path))
		}
		seen[*e] = i
		if e.Name == "" {
			e.Name = e.Path
		}
		if other, ok := first[e.Name]; ok && e.Type == "file" {
			return nil, fault.Malformedf("artifacts[%d]: has the name %q, as has artifacts[%d]", i, e.Name, other)
		}
		if e.Type == "file" {
			first[e.Name] = i
		}
		if err := e.expire(i, d); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// expire decides when the artifact expires.
func (e *entry) expire(i int, d task.Definition) error {
	e.expires = d.Expires
	if e.Expires == "" {
		return nil
	}
	expires, err := time.Parse(time.RFC3339, e.Expires)
	switch {
	case err != nil:
		return fault.Malformedf("artifacts[%d].expires: %q is not a valid date-time", i, e.Expires)
	case expires.Before(d.Deadline):
		return fault.Malformedf("artifacts[%d].expires: artifact %q expires before task deadline (%s is before %s)",
			i, e.Name, stamp(expires), stamp(d.Deadline))
	case expires.After(d.Expires):
		return fault.Malformedf("artifacts[%d].expires: artifact %q expires after task expiry (%s is after %s)",
			i, e.Name, stamp(expires), stamp(d.Expires))
	}
	e.expires = expires
	return nil
}

// stamp writes a time as Taskcluster does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// small is up to how many bytes an artifact is salvaged before larger ones.
const small = 1 << 20

type taskPlugin struct {
	config  Config
	task    plugin.Task
	entries []entry
	settled map[string]bool // names of artifacts about which nothing is left to do
}

// Stopped implements plugin.Stopper. It publishes whatever can be published, even
// once something could not be.
//
// Faults: Failure, for an artifact that is not as the task has announced it;
// Malformed, for different files of one name; those of artifact.Store.
func (p *taskPlugin) Stopped(ctx context.Context, r engine.ResultSet) error {
	return p.publish(ctx, r, p.collect(r, p.entries))
}

// Salvage implements plugin.Salvager. It publishes what is there and has not been
// published yet; that something is missing is no wonder, and not said. Where the
// host goes away, time is for what the task wants to have then.
func (p *taskPlugin) Salvage(ctx context.Context, why run.Reason, r engine.ResultSet) error {
	if r == nil {
		return nil
	}
	wanted := p.entries
	if why == run.WorkerShutdown {
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(e entry) bool { return e.OnInterruption != "upload" })
	}
	var there []item
	for _, it := range p.collect(r, wanted) {
		if it.flaw == nil {
			there = append(there, it)
		}
	}
	// What is large must not cost the rest the time.
	large := slices.DeleteFunc(slices.Clone(there), func(it item) bool { return it.size <= small })
	there = slices.DeleteFunc(there, func(it item) bool { return it.size > small })
	return errors.Join(p.publish(ctx, r, there), p.publish(ctx, r, large))
}

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error { return nil }
