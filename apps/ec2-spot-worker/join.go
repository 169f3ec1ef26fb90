package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/taskcluster/taskcluster-worker/adapters/ec2"
	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

// join has the worker become one of its pool. The returned function ends what
// renews its credentials.
func join(ctx context.Context, l loaded, m *ec2.Metadata, log *slog.Logger) (parts.Joined, func(), error) {
	d, provider, err := findOut(ctx, l.config, m)
	if err != nil {
		return parts.Joined{}, nil, fmt.Errorf("find out who the worker is: %w", err)
	}
	return parts.Join(ctx, l.Linux, d, provider, prover(l.Provider, m), log)
}

// findOut returns where the worker is to work, as whom, and by which provider, as
// the configuration says or else the metadata of the instance.
func findOut(ctx context.Context, c config, m *ec2.Metadata) (d parts.Deployment, provider string, err error) {
	data, err := m.UserData(ctx)
	if err != nil {
		return d, "", err
	}
	instance, err := m.Instance(ctx)
	if err != nil {
		return d, "", err
	}
	where, err := json.Marshal(map[string]string{
		"cloud": "aws", "region": instance.Region, "availabilityZone": instance.AvailabilityZone,
	})
	if err != nil {
		return d, "", err
	}
	d = parts.Deployment{
		RootURL: cmp.Or(c.RootURL, data.RootURL),
		Worker: identity.Worker{
			Pool:  cmp.Or(c.Worker.Pool, data.Pool),
			Group: cmp.Or(c.Worker.Group, data.WorkerGroup, instance.Region),
			ID:    instance.ID,
		},
		Machine: parts.Machine{Location: string(where), InstanceType: instance.Type, PublicIP: instance.PublicIP},
	}
	provider = cmp.Or(c.Provider.ID, data.ProviderID)
	var missing []error
	for _, s := range []struct{ value, path, userData string }{
		{d.RootURL, "rootURL", "rootUrl"}, {d.Worker.Pool, "worker.pool", "workerPoolId"}, {provider, "provider.id", "providerId"},
	} {
		if s.value == "" {
			missing = append(missing, fmt.Errorf("neither is %s configured, nor does the user data have %s", s.path, s.userData))
		}
	}
	return d, provider, errors.Join(missing...)
}

// prover returns what proves who the worker is.
func prover(p providerConfig, m *ec2.Metadata) taskcluster.Prover {
	if p.Secret != "" {
		return taskcluster.ProveStatic(p.Secret)
	}
	return taskcluster.ProveToAWS(m.Proof)
}
