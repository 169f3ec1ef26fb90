// Package azure knows what the metadata service of Azure says of the virtual
// machine that a worker runs on: who it is, how it proves that, and that it is
// to be taken away.
package azure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/imds"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Config says where the service is. Values that are zero get the default that is
// given with them.
type Config struct {
	URL   string        // http://169.254.169.254
	Every time.Duration // between requests for scheduled events; 1 second, as Azure advises
	Pause time.Duration // between attempts after an error; 1 second
}

// Metadata is the metadata service. It is safe for concurrent use. As an
// interrupt.Source, it announces scheduled events.
type Metadata struct {
	cfg    Config
	client *imds.Client
	log    *slog.Logger

	mu        sync.Mutex
	name      string               // of the machine, once it is known
	announced map[string]time.Time // when events begin, as told last, by id
	failed    bool                 // the last request did
}

var _ interrupt.Source = (*Metadata)(nil)

// New returns the service, which is not asked yet, and what closes connections.
func New(cfg Config, log *slog.Logger) (*Metadata, func()) {
	cfg.URL = cmp.Or(cfg.URL, "http://169.254.169.254")
	cfg.Every = cmp.Or(cfg.Every, time.Second)
	cfg.Pause = cmp.Or(cfg.Pause, time.Second)
	client, shut := imds.New(imds.Config{URL: cfg.URL, Header: [2]string{"Metadata", "true"}, Pause: cfg.Pause})
	return &Metadata{cfg: cfg, client: client, log: log, announced: map[string]time.Time{}}, shut
}

// Document returns the attested document of the machine, in base64, which proves
// which one this is.
func (m *Metadata) Document(ctx context.Context) (string, error) {
	var document struct {
		Encoding  string `json:"encoding"`
		Signature string `json:"signature"`
	}
	if err := m.get(ctx, "/metadata/attested/document", "2020-09-01", &document); err != nil {
		return "", err
	}
	if document.Encoding != "pkcs7" || document.Signature == "" {
		return "", fmt.Errorf("attested document has encoding %q and %d bytes, want pkcs7", document.Encoding, len(document.Signature))
	}
	return document.Signature, nil
}

// Instance is the machine, and what worker-manager, which has created it, says
// of it.
type Instance struct {
	Name, Region, Zone, Type string // the zone may be empty
	PublicIP                 string // empty if it has none

	RootURL, ProviderID, Pool, Group string
}

// Instance returns who this machine is.
//
// Errors: those of the service; that no worker-manager has created it.
func (m *Metadata) Instance(ctx context.Context) (Instance, error) {
	var answer struct {
		Compute struct {
			Name     string `json:"name"`
			Location string `json:"location"`
			Zone     string `json:"zone"`
			VMSize   string `json:"vmSize"`
			TagsList []struct {
				Name  string `json:"name"`
				Value string `json:"value"`
			} `json:"tagsList"`
		} `json:"compute"`
		Network struct {
			Interface []struct {
				IPv4 struct {
					IPAddress []struct {
						PublicIPAddress string `json:"publicIpAddress"`
					} `json:"ipAddress"`
				} `json:"ipv4"`
			} `json:"interface"`
		} `json:"network"`
	}
	if err := m.get(ctx, "/metadata/instance", "2020-09-01", &answer); err != nil {
		return Instance{}, err
	}
	i := Instance{Name: answer.Compute.Name, Region: answer.Compute.Location, Zone: answer.Compute.Zone, Type: answer.Compute.VMSize}
	for _, n := range answer.Network.Interface {
		for _, a := range n.IPv4.IPAddress {
			i.PublicIP = cmp.Or(i.PublicIP, a.PublicIPAddress)
		}
	}
	for _, tag := range answer.Compute.TagsList {
		switch tag.Name {
		case "root-url":
			i.RootURL = tag.Value
		case "provider-id":
			i.ProviderID = tag.Value
		case "worker-pool-id":
			i.Pool = tag.Value
		case "worker-group":
			i.Group = tag.Value
		}
	}
	if i.Name == "" {
		return Instance{}, errors.New("the metadata service does not say the machine's name")
	}
	if i.ProviderID == "" {
		return Instance{}, errors.New(`the machine has no tag "provider-id": worker-manager has not created it`)
	}
	return i, nil
}

// get decodes what is at a path.
func (m *Metadata) get(ctx context.Context, path, version string, to any) error {
	answer, err := m.client.Get(ctx, path, url.Values{"api-version": {version}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer.Body, to); err != nil {
		return fmt.Errorf("read metadata %s: %w", path, err)
	}
	return nil
}
