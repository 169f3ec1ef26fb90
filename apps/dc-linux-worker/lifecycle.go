package main

import (
	"cmp"
	"log/slog"

	"github.com/taskcluster/taskcluster-worker/adapters/azure"
	"github.com/taskcluster/taskcluster-worker/adapters/gce"
	"github.com/taskcluster/taskcluster-worker/adapters/hostpower"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// The types of providers.
const (
	providerNone   = "none"
	providerStatic = "static"
	providerGoogle = "google"
	providerAzure  = "azure"
)

// What can become of the machine.
const (
	endExit     = "exit"
	endRemove   = "remove"
	endPowerOff = "powerOff"
	endReboot   = "reboot"
)

// inCloud reports whether worker-manager has created the machine.
func (c config) inCloud() bool {
	return c.Provider.Type == providerGoogle || c.Provider.Type == providerAzure
}

// atEnd returns what becomes of the machine.
func (c config) atEnd() string {
	if c.Lifecycle.AtEnd == "" && c.inCloud() {
		return endRemove
	}
	return cmp.Or(c.Lifecycle.AtEnd, endExit)
}

// newHost returns the machine, or nil if it stays.
func newHost(c config, h parts.Hooks) (interrupt.Host, error) {
	action := map[string]hostpower.Action{endPowerOff: hostpower.PowerOff, endReboot: hostpower.Reboot}[c.atEnd()]
	if !h.Service || action == "" {
		return nil, nil //nolint:nilnil // no host is what an assembly understands
	}
	return hostpower.New(hostpower.Config{Action: action})
}

// newIdentity returns who the worker is: as it has joined its pool, or by the
// credentials that it was given.
func newIdentity(m membership, c config, client *taskcluster.Client) identity.Provider {
	who := m.Identity
	if who == nil {
		who = taskcluster.NewStaticIdentity(client)
	}
	if end := c.atEnd(); end == endExit || end == endReboot {
		return parts.Staying{Provider: who}
	}
	return who
}

// interrupts are where notices come from. Signals are heeded first.
func interrupts(s *signals.Source, l parts.Lifecycle, p preemption, m membership) []interrupt.Source {
	sources := []interrupt.Source{s}
	sources = append(sources, l...)
	sources = append(sources, p...)
	return append(sources, m.Sources...)
}

// preemption is the source of notices about the machine, if there is one.
type preemption []interrupt.Source

func newPreemption(c config, h parts.Hooks, log *slog.Logger) (preemption, func()) {
	whose := c.Lifecycle.Preemption
	if whose == "" && c.inCloud() {
		whose = c.Provider.Type
	}
	switch {
	case !h.Service:
	case whose == providerGoogle:
		m, shut := gce.New(gce.Config{URL: c.Provider.Metadata}, log)
		return preemption{m.Preemption(), m.Maintenance()}, shut
	case whose == providerAzure:
		m, shut := azure.New(azure.Config{URL: c.Provider.Metadata}, log)
		return preemption{m}, shut
	}
	return nil, func() {}
}
