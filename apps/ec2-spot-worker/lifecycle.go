package main

import (
	"slices"

	"github.com/taskcluster/taskcluster-worker/adapters/ec2"
	"github.com/taskcluster/taskcluster-worker/adapters/hostpower"
	"github.com/taskcluster/taskcluster-worker/adapters/signals"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// interrupts are where notices come from. Signals are heeded first.
func interrupts(s *signals.Source, i *ec2.Interruptions, l parts.Lifecycle, j parts.Joined) []interrupt.Source {
	return slices.Concat([]interrupt.Source{s, j.Identity}, i.Sources(), l)
}

// interruptionConfig says which announcements of the instance's end are heeded.
func interruptionConfig(c lifecycleConfig) ec2.InterruptionConfig {
	return ec2.InterruptionConfig{Rebalance: c.Rebalance, ScaleIn: c.ScaleIn}
}

// newHost returns the instance, or nil if it stays.
func newHost(c lifecycleConfig) (interrupt.Host, error) {
	if c.AtEnd != endPowerOff {
		return nil, nil //nolint:nilnil // no host is what an assembly understands
	}
	return hostpower.New(hostpower.Config{Action: hostpower.PowerOff})
}

// newIdentity returns who the worker is.
func newIdentity(c lifecycleConfig, j parts.Joined) identity.Provider {
	if c.AtEnd == endExit {
		return parts.Staying{Provider: j.Identity}
	}
	return j.Identity
}
