// Package gce knows what the metadata service of Google Compute Engine says of
// the instance that a worker runs on: who it is, how it proves that, and that it
// is to be preempted.
package gce

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/imds"
)

// Config says where the service is. Values that are zero get the default that is
// given with them.
type Config struct {
	URL string // http://metadata.google.internal

	// Notice is how long an instance is there after it is told that it is
	// preempted; 30 seconds. Maintenance is the same for an instance that its
	// host's maintenance stops; 1 hour.
	Notice, Maintenance time.Duration

	// Poll is for how long one request waits for news; 1 minute.
	Poll time.Duration

	// Pause is the time between attempts after an error; 1 second.
	Pause time.Duration
}

// Metadata is the metadata service. It is safe for concurrent use.
type Metadata struct {
	cfg    Config
	client *imds.Client
	log    *slog.Logger
}

// New returns the service, which is not asked yet, and what closes connections.
func New(cfg Config, log *slog.Logger) (*Metadata, func()) {
	cfg.URL = cmp.Or(cfg.URL, "http://metadata.google.internal")
	cfg.Notice = cmp.Or(cfg.Notice, 30*time.Second)
	cfg.Maintenance = cmp.Or(cfg.Maintenance, time.Hour)
	cfg.Poll = cmp.Or(cfg.Poll, time.Minute)
	cfg.Pause = cmp.Or(cfg.Pause, time.Second)
	client, shut := imds.New(imds.Config{URL: cfg.URL, Header: [2]string{"Metadata-Flavor", "Google"}, Pause: cfg.Pause})
	return &Metadata{cfg, client, log}, shut
}

const root = "/computeMetadata/v1/instance/"

// Token returns a token of the instance's default service account, which proves
// to the audience, a URL, which instance this is.
func (m *Metadata) Token(ctx context.Context, audience string) (string, error) {
	return m.text(ctx, "service-accounts/default/identity", url.Values{"audience": {audience}, "format": {"full"}})
}

// Instance is the instance, and what worker-manager, which has created it, says
// of it.
type Instance struct {
	ID, Zone, Region, Type string
	PublicIP               string // empty if it has none

	RootURL, ProviderID, Pool, Group string
}

// Instance returns who this instance is.
//
// Errors: those of the service; that no worker-manager has created it.
func (m *Metadata) Instance(ctx context.Context) (Instance, error) {
	var i Instance
	for _, v := range []struct {
		path string
		to   *string
	}{
		{"id", &i.ID},
		{"zone", &i.Zone},
		{"machine-type", &i.Type},
		{"network-interfaces/0/access-configs/0/external-ip", &i.PublicIP},
	} {
		value, err := m.text(ctx, v.path, nil)
		if err != nil && (v.to != &i.PublicIP || !imds.Missing(err)) {
			return Instance{}, err
		}
		// Zones and types are paths that begin with the project.
		if *v.to = value; value != "" {
			*v.to = path.Base(value)
		}
	}
	i.Region = i.Zone
	if end := strings.LastIndexByte(i.Zone, '-'); end > 0 {
		i.Region = i.Zone[:end]
	}
	raw, err := m.client.Get(ctx, root+"attributes/taskcluster", nil)
	if imds.Missing(err) {
		return Instance{}, errors.New(`the instance has no attribute "taskcluster": worker-manager has not created it`)
	}
	if err != nil {
		return Instance{}, err
	}
	var attribute struct {
		RootURL      string `json:"rootUrl"`
		ProviderID   string `json:"providerId"`
		WorkerPoolID string `json:"workerPoolId"`
		WorkerGroup  string `json:"workerGroup"`
	}
	if err := json.Unmarshal(raw.Body, &attribute); err != nil {
		return Instance{}, fmt.Errorf(`attribute "taskcluster" of the instance: %w`, err)
	}
	i.RootURL, i.ProviderID, i.Pool, i.Group = attribute.RootURL, attribute.ProviderID, attribute.WorkerPoolID, attribute.WorkerGroup
	return i, nil
}

func (m *Metadata) text(ctx context.Context, at string, query url.Values) (string, error) {
	answer, err := m.client.Get(ctx, root+at, query)
	return strings.TrimSpace(string(answer.Body)), err
}
