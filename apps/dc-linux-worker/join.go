package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/taskcluster/taskcluster-worker/adapters/azure"
	"github.com/taskcluster/taskcluster-worker/adapters/gce"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
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
func join(ctx context.Context, l loaded, log *slog.Logger) (_ joined, end func(), err error) {
	d := configuredDeployment(l.config)
	var ends closers
	defer func() {
		if err != nil {
			ends.close()
		}
	}()
	if l.Provider.Type == providerNone {
		return joined{Deployment: d}, ends.close, nil
	}
	if err := makeStateDir(l.StateDir()); err != nil {
		return joined{}, nil, err
	}
	registration := taskcluster.IdentityConfig{
		ProviderID: l.Provider.ID, Prove: taskcluster.ProveStatic(l.Provider.Secret),
		File: filepath.Join(l.StateDir(), "registration.json"),
	}
	if l.inCloud() {
		found, shut, err := findMachine(ctx, l, log)
		ends.add(shut)
		if err != nil {
			return joined{}, nil, fmt.Errorf("find out who the worker is: %w", err)
		}
		d = found.over(d, l.isDefault("worker.id"))
		registration.ProviderID = cmp.Or(registration.ProviderID, found.provider)
		registration.Prove = found.prove
	}
	d.Credentials, d.Registered = task.Credentials{}, true
	client, disconnect, err := taskcluster.NewClient(parts.TaskclusterConfig(l.Linux, d), telemetry.Off{}, log)
	if err != nil {
		return joined{}, nil, err
	}
	ends.add(disconnect)
	who, leave, err := taskcluster.NewIdentity(ctx, client, registration, log)
	if err != nil {
		return joined{}, nil, err
	}
	ends.add(leave)
	d.As = client
	settings, err := who.PoolConfig(ctx)
	if err != nil {
		parts.Report(ctx, who, err, log)
		return joined{}, nil, err
	}
	return joined{
		membership: membership{who, []interrupt.Source{who}},
		Deployment: d,
		Pool:       []setting.Document{{Name: "worker pool " + d.Worker.Pool, Content: settings}},
	}, ends.close, nil
}

// makeStateDir makes the directory for the worker's state, which the worker
// alone may read. Users of tasks pass through those above it, where engines have
// their directories.
func makeStateDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o755) //nolint:gosec // G301: tasks pass through
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// closers are called once, the last one first.
type closers []func()

func (c *closers) add(f func()) { *c = append(*c, f) }

func (c *closers) close() {
	for _, f := range slices.Backward(*c) {
		f()
	}
	*c = nil
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
