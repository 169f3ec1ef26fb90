package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/taskcluster/taskcluster-worker/adapters/taskcluster"
	"github.com/taskcluster/taskcluster-worker/adapters/workerrunner"
	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// runnerSources returns where the configuration of a worker comes from that
// start-worker starts: who the worker is, in the file that it wrote, and
// nothing of Taskcluster's in the environment, which is that of start-worker.
func runnerSources(file string, environ []string) (setting.Sources, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // start-worker names it
	if err != nil {
		return setting.Sources{}, fmt.Errorf("configuration by start-worker: %w", err)
	}
	var content map[string]any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&content); err != nil {
		return setting.Sources{}, fmt.Errorf("configuration by start-worker: %s: %w", file, err)
	}
	return setting.Sources{
		Documents: []setting.Document{{Name: file, Content: ofStartWorker(content)}},
		Environ: slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
			return strings.HasPrefix(variable, "TASKCLUSTER_")
		}),
	}, nil
}

// ofStartWorker returns the settings in what start-worker writes for
// generic-worker: its names for who the worker is and where, among settings of
// ours that the pool configures.
func ofStartWorker(theirs map[string]any) map[string]any {
	ours := maps.Clone(theirs)
	take := func(key string) any {
		value := ours[key]
		delete(ours, key)
		return value
	}
	set := func(section, key string, value any) {
		if value == nil || value == "" {
			return
		}
		known, _ := ours[section].(map[string]any)
		known = maps.Clone(known)
		if known == nil {
			known = map[string]any{}
		}
		known[key] = value
		ours[section] = known
	}
	set("credentials", "clientID", take("clientId"))
	set("credentials", "accessToken", take("accessToken"))
	set("credentials", "certificate", take("certificate"))
	provisioner, _ := take("provisionerId").(string)
	workerType, _ := take("workerType").(string)
	set("worker", "pool", provisioner+"/"+workerType)
	set("worker", "group", take("workerGroup"))
	set("worker", "id", take("workerId"))
	set("worker", "publicIP", take("publicIP"))
	set("worker", "instanceType", take("instanceType"))
	where := map[string]any{}
	for _, key := range []string{"region", "availabilityZone"} {
		if value := take(key); value != nil {
			where[key] = value
		}
	}
	if location, err := json.Marshal(where); err == nil && len(where) > 0 {
		set("worker", "location", string(location))
	}
	for _, key := range []string{"privateIP", "instanceID", "workerTypeMetadata"} {
		take(key)
	}
	return ours
}

// joinRunner has a worker that start-worker has started speak with it, and take
// its credentials from it.
func joinRunner(l loaded, in io.ReadCloser, out io.Writer, log *slog.Logger) (joined, func(), error) {
	d := configuredDeployment(l.config)
	client, disconnect, err := taskcluster.NewClient(parts.TaskclusterConfig(l.Linux, d), telemetry.Off{}, log)
	if err != nil {
		return joined{}, nil, err
	}
	runner, hangUp := workerrunner.New(workerrunner.Config{Grace: parts.AtOnce(l.Worker.Worker)}, in, out, func(c task.Credentials) {
		client.SetCredentials(c)
		log.InfoContext(context.Background(), "credentials are renewed")
	}, log)
	d.As, d.Registered = client, true
	who := underRunner{taskcluster.NewStaticIdentity(client), runner}
	return joined{membership: membership{who, []interrupt.Source{runner}}, Deployment: d}, func() {
		hangUp()
		disconnect()
	}, nil
}

// underRunner is the identity of a worker that start-worker has registered, and
// removes where it was created for it.
type underRunner struct {
	taskcluster.StaticIdentity
	runner *workerrunner.Runner
}

var _ identity.Provider = underRunner{}

// Remove implements identity.Provider.
func (u underRunner) Remove(ctx context.Context) error { return u.runner.Shutdown(ctx) }

// ReportError implements identity.Provider.
func (u underRunner) ReportError(ctx context.Context, r identity.Report) error {
	return u.runner.ReportError(ctx, r)
}
