// Package tasklog publishes the logs of tasks.
package tasklog

import (
	"context"
	_ "embed" // the schema
	"encoding/json"
	"errors"
	"fmt"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/pkg/spool"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

//go:embed payload-schema.json
var schema []byte

const (
	contentType = "text/plain; charset=utf-8"
	liveName    = "public/logs/live.log"
	backingName = "public/logs/live_backing.log"

	// inMemory is how much of a compressed log is kept in memory until it is
	// stored, which is all of most logs.
	inMemory = 256 << 10
)

// Config is what an operator may choose.
type Config struct {
	// TempDir is where long logs are compressed to; the system's directory
	// for temporary files if empty. A log is published without it too, for
	// twice the time.
	TempDir string
}

// Plugin publishes logs.
type Plugin struct{ config Config }

// New returns the plugin.
func New(c Config) *Plugin { return &Plugin{config: c} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return "taskLog" }

// PayloadSchema implements plugin.Plugin.
func (p *Plugin) PayloadSchema() []byte { return schema }

type payload struct {
	Logs struct {
		Live    string `json:"live"`
		Backing string `json:"backing"`
	} `json:"logs"`
	Features struct {
		LiveLog    *bool `json:"liveLog"`
		BackingLog *bool `json:"backingLog"`
	} `json:"features"`
}

// NewTaskPlugin implements plugin.Plugin. There is no need of the plugin where no
// log is to be published.
//
// Faults: Malformed, if two logs have one name.
func (p *Plugin) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	var pl payload
	pl.Logs.Live, pl.Logs.Backing = liveName, backingName
	if err := json.Unmarshal(t.Payload, &pl); err != nil {
		return nil, fmt.Errorf("parse payload of taskLog: %w", err)
	}
	if isOff(pl.Features.BackingLog) {
		return nil, nil
	}
	if isOff(pl.Features.LiveLog) {
		pl.Logs.Live = ""
	}
	if pl.Logs.Live == pl.Logs.Backing {
		return nil, fault.Malformedf("logs: the live log and the backing log cannot both be named %q", pl.Logs.Live)
	}
	return &taskPlugin{config: p.config, task: t, live: pl.Logs.Live, backing: pl.Logs.Backing}, nil
}

func isOff(flag *bool) bool { return flag != nil && !*flag }

type taskPlugin struct {
	config  Config
	task    plugin.Task
	live    string // empty for none
	backing string
}

// ArtifactNames implements plugin.ArtifactNamer.
func (p *taskPlugin) ArtifactNames() []string {
	if p.live == "" {
		return []string{p.backing}
	}
	return []string{p.backing, p.live}
}

// Finished implements plugin.Finisher.
//
// Faults: those of artifact.Store.
func (p *taskPlugin) Finished(ctx context.Context, _ run.Resolution, log plugin.Log) (err error) {
	z, err := spool.New(ctx, p.config.TempDir, inMemory, log.Open)
	if err != nil {
		return fmt.Errorf("compress task log: %w", err)
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	content := artifact.Content{Encoding: "gzip", Size: z.Size(), Length: z.Length(), Open: z.Open}
	if err := p.task.Artifacts.Upload(ctx, p.meta(p.backing), content); err != nil {
		return fmt.Errorf("upload task log: %w", err)
	}
	if p.live == "" {
		return nil
	}
	if err := p.task.Artifacts.Link(ctx, p.meta(p.live), p.backing); err != nil {
		return fmt.Errorf("link live log: %w", err)
	}
	return nil
}

func (p *taskPlugin) meta(name string) artifact.Meta {
	return artifact.Meta{Name: name, ContentType: contentType, Expires: p.task.Definition.Expires}
}

// Close implements plugin.TaskPlugin.
func (p *taskPlugin) Close() error { return nil }
