package dockerworker

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

// dockerPayload is a payload that matches docker-worker's schema.
type dockerPayload struct {
	Image        json.RawMessage     `json:"image"`
	Command      []string            `json:"command"`
	Env          json.RawMessage     `json:"env"`
	MaxRunTime   json.RawMessage     `json:"maxRunTime"`
	Cache        map[string]string   `json:"cache"`
	Log          string              `json:"log"`
	Capabilities capabilities        `json:"capabilities"`
	OnExitStatus json.RawMessage     `json:"onExitStatus"`
	Artifacts    map[string]artifact `json:"artifacts"`
	Features     map[string]bool     `json:"features"`
}

type artifact struct {
	Type           string `json:"type"`
	Path           string `json:"path"`
	Expires        string `json:"expires"`
	OnInterruption string `json:"onInterruption"` // which docker-worker had not
}

// capabilities are what both forms have alike.
type capabilities struct {
	Privileged     bool            `json:"privileged,omitempty"`
	DisableSeccomp bool            `json:"disableSeccomp,omitempty"`
	Ptrace         bool            `json:"ptrace,omitempty"` // a feature, for docker-worker
	Devices        map[string]bool `json:"devices,omitempty"`
}

// ownPayload is a payload in this worker's own form.
type ownPayload struct {
	Image        any             `json:"image"`
	Command      [][]string      `json:"command,omitempty"`
	TTY          bool            `json:"tty"`
	Env          json.RawMessage `json:"env,omitempty"`
	MaxRunTime   json.RawMessage `json:"maxRunTime"`
	Mounts       []mount         `json:"mounts,omitempty"`
	Logs         map[string]any  `json:"logs,omitempty"`
	Capabilities *capabilities   `json:"capabilities,omitempty"`
	OnExitStatus json.RawMessage `json:"onExitStatus,omitempty"`
	Artifacts    []ownArtifact   `json:"artifacts,omitempty"`
	Features     map[string]bool `json:"features,omitempty"`
}

type mount struct {
	CacheName string `json:"cacheName"`
	Directory string `json:"directory"`
}

type ownArtifact struct {
	Name           string `json:"name"`
	Type           string `json:"type"`
	Path           string `json:"path"`
	Expires        string `json:"expires,omitempty"`
	Optional       bool   `json:"optional"`
	OnInterruption string `json:"onInterruption,omitempty"`
}

// unavailable returns a violation for each feature of docker-worker's that asks
// for services which are no more.
func (p *dockerPayload) unavailable() []payload.Violation {
	var violations []payload.Violation
	for _, name := range []string{"balrogStageProxy", "balrogVPNProxy", "dind", "dockerSave", "relengAPIProxy"} {
		if p.Features[name] {
			violations = append(violations, payload.Violation{
				Path:    "features." + name,
				Message: "the feature " + name + " of docker-worker is not available",
			})
		}
	}
	return violations
}

func (p *dockerPayload) translate() ownPayload {
	own := ownPayload{
		Image:        p.image(),
		TTY:          true, // docker-worker's containers had a terminal
		Env:          p.Env,
		MaxRunTime:   p.MaxRunTime,
		OnExitStatus: p.OnExitStatus,
		Features:     p.features(),
	}
	if len(p.Command) > 0 {
		own.Command = [][]string{p.Command}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Cache)) {
		own.Mounts = append(own.Mounts, mount{CacheName: name, Directory: p.Cache[name]})
	}
	if p.Log != "" {
		own.Logs = map[string]any{"live": p.Log}
	}
	c := p.Capabilities
	maps.DeleteFunc(c.Devices, func(_ string, wanted bool) bool { return !wanted })
	c.Ptrace = p.Features["allowPtrace"]
	if c.Privileged || c.DisableSeccomp || c.Ptrace || len(c.Devices) > 0 {
		own.Capabilities = &c
	}
	if wanted, said := p.Features["artifacts"]; wanted || !said {
		own.Artifacts = p.artifacts()
	}
	return own
}

// image returns the image in the terms of the docker engine.
func (p *dockerPayload) image() any {
	var named struct {
		Type      string `json:"type"`
		Name      string `json:"name"`
		TaskID    string `json:"taskId"`
		Namespace string `json:"namespace"`
		Path      string `json:"path"`
	}
	if err := json.Unmarshal(p.Image, &named); err != nil {
		return p.Image // a name by itself
	}
	switch named.Type {
	case "task-image":
		return map[string]string{"taskId": named.TaskID, "artifact": named.Path}
	case "indexed-image":
		return map[string]string{"namespace": named.Namespace, "artifact": named.Path}
	default:
		return named.Name
	}
}

// artifacts returns the artifacts, none of which a task of docker-worker had to
// have. A volume was a directory that the host shared with the container.
func (p *dockerPayload) artifacts() []ownArtifact {
	var list []ownArtifact
	for _, name := range slices.Sorted(maps.Keys(p.Artifacts)) {
		a := p.Artifacts[name]
		if a.Type == "volume" {
			a.Type = "directory"
		}
		list = append(list, ownArtifact{
			Name: name, Type: a.Type, Path: a.Path, Expires: a.Expires, Optional: true, OnInterruption: a.OnInterruption,
		})
	}
	return list
}

// features returns the flags that say something other than what is so by
// default. Whether a plugin offers them, the worker knows.
func (p *dockerPayload) features() map[string]bool {
	flags := map[string]bool{}
	if live, said := p.Features["localLiveLog"]; said && !live {
		flags["liveLog"] = false
		if bulk, said := p.Features["bulkLog"]; said && !bulk {
			flags["backingLog"] = false
		}
	}
	for _, name := range []string{"taskclusterProxy", "interactive", "chainOfTrust"} {
		if p.Features[name] {
			flags[name] = true
		}
	}
	return flags
}
