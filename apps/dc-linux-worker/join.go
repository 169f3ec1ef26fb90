package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/taskcluster/taskcluster-worker/adapters/azure"
	"github.com/taskcluster/taskcluster-worker/adapters/gce"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// membership is what a worker has by being one of its pool. The zero membership
// is that of a worker with credentials that nobody renews.
type membership struct {
	Identity identity.Provider  // nil if the worker was given its credentials
	Sources  []interrupt.Source // of notices about the membership
}

// joined is a worker that is about to begin.
type joined struct {
	membership
	Deployment parts.Deployment
	Pool       []setting.Document // what the pool configures
}

// configuredDeployment is what the configuration says.
func configuredDeployment(c config) parts.Deployment {
	w := c.Worker
	return parts.Deployment{
		RootURL:     c.RootURL,
		Credentials: task.Credentials(c.Credentials),
		Worker:      identity.Worker{Pool: w.Pool, Group: w.Group, ID: w.ID},
		Machine:     parts.Machine{Location: w.Location, InstanceType: w.InstanceType, PublicIP: w.PublicIP},
	}
}

// deployment returns d with what the configuration says of the machine, of which
// the pool may know more than the worker did when it joined.
func (c config) deployment(d parts.Deployment) parts.Deployment {
	said := configuredDeployment(c).Machine
	d.Machine.Location = cmp.Or(said.Location, d.Machine.Location)
	d.Machine.InstanceType = cmp.Or(said.InstanceType, d.Machine.InstanceType)
	d.Machine.PublicIP = cmp.Or(said.PublicIP, d.Machine.PublicIP)
	return d
}

// join has the worker become one of its pool, as the configuration says. The
// returned function ends what renews its credentials.
func join(ctx context.Context, l loaded, log *slog.Logger) (joined, func(), error) {
	d := configuredDeployment(l.config)
	if l.Provider.Type == providerNone {
		return joined{Deployment: d}, func() {}, nil
	}
	provider, prove, shut := l.Provider.ID, taskcluster.ProveStatic(l.Provider.Secret), func() {}
	if l.inCloud() {
		found, end, err := findMachine(ctx, l, log)
		if err != nil {
			end()
			return joined{}, nil, fmt.Errorf("find out who the worker is: %w", err)
		}
		d = found.over(d, l.isDefault("worker.id"))
		provider, prove, shut = cmp.Or(provider, found.provider), found.prove, end
	}
	j, leave, err := parts.Join(ctx, l.Linux, d, provider, prove, log)
	if err != nil {
		shut()
		return joined{}, nil, err
	}
	end := func() {
		leave()
		shut()
	}
	return joined{
		membership: membership{j.Identity, []interrupt.Source{j.Identity}},
		Deployment: j.Deployment,
		Pool:       []setting.Document{j.Pool},
	}, end, nil
}

// machine is what a metadata service says of the machine.
type machine struct {
	rootURL  string
	worker   identity.Worker
	machine  parts.Machine
	provider string
	prove    taskcluster.Prover
}

// over returns d with what it does not say, but for the machine.
func (m machine) over(d parts.Deployment, noID bool) parts.Deployment {
	d.RootURL = cmp.Or(d.RootURL, m.rootURL)
	d.Worker.Pool = cmp.Or(d.Worker.Pool, m.worker.Pool)
	d.Worker.Group = cmp.Or(d.Worker.Group, m.worker.Group)
	if noID {
		d.Worker.ID = m.worker.ID
	}
	d.Machine = m.machine
	return d
}

// findMachine asks the metadata service of the worker's cloud. Proofs are made
// until the returned function is called.
func findMachine(ctx context.Context, l loaded, log *slog.Logger) (machine, func(), error) {
	if l.Provider.Type == providerGoogle {
		m, shut := gce.New(gce.Config{URL: l.Provider.Metadata}, log)
		i, err := m.Instance(ctx)
		root := cmp.Or(l.RootURL, i.RootURL)
		return machine{
			rootURL: i.RootURL, provider: i.ProviderID,
			worker:  identity.Worker{Pool: i.Pool, Group: i.Group, ID: i.ID},
			machine: parts.Machine{InstanceType: i.Type, PublicIP: i.PublicIP, Location: location("google", i.Region, i.Zone)},
			prove:   taskcluster.ProveToGoogle(func(ctx context.Context) (string, error) { return m.Token(ctx, root) }),
		}, shut, err
	}
	m, shut := azure.New(azure.Config{URL: l.Provider.Metadata}, log)
	i, err := m.Instance(ctx)
	return machine{
		rootURL: i.RootURL, provider: i.ProviderID,
		worker:  identity.Worker{Pool: i.Pool, Group: i.Group, ID: i.Name},
		machine: parts.Machine{InstanceType: i.Type, PublicIP: i.PublicIP, Location: location("azure", i.Region, i.Zone)},
		prove:   taskcluster.ProveToAzure(m.Document),
	}, shut, err
}

// location returns where a machine is, as tasks see it.
func location(cloud, region, zone string) string {
	where := map[string]string{"cloud": cloud, "region": region}
	if zone != "" {
		where["zone"] = zone
	}
	raw, err := json.Marshal(where)
	if err != nil {
		return "" // a map of texts can be encoded
	}
	return string(raw)
}
