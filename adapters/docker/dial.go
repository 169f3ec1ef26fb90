package docker

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
)

// dialer connects to the daemon, and waits for one that is being started again:
// tasks that need it meanwhile would otherwise fail at once, one after the other.
// Nothing is asked of the daemon before it is there, so waiting repeats nothing.
type dialer struct {
	network  string
	address  string
	patience time.Duration
	log      *slog.Logger

	// known is set once the daemon was there: an address that is wrong is told
	// at once.
	known atomic.Bool
	// stay is done when nobody waits any more.
	stay context.Context //nolint:containedctx // of the engine, and not of a call
}

// connect returns a client of the daemon that is configured, or that the
// environment names.
func (e *Engine) connect() (*client.Client, error) {
	host := cmp.Or(e.config.Host, os.Getenv(client.EnvOverrideHost), client.DefaultDockerHost)
	address, err := client.ParseHostURL(host)
	if err != nil {
		return nil, err
	}
	d := &dialer{network: address.Scheme, address: address.Host, patience: e.config.DaemonPatience, log: e.log, stay: e.ctx}
	return client.New(client.WithHost(host), client.WithDialContext(d.dial))
}

// dial has the form that the client's option wants. What it would dial is a
// name that stands for the daemon.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	giveUp := time.Now().Add(d.patience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := (&net.Dialer{}).DialContext(ctx, d.network, d.address)
		if err == nil {
			d.known.Store(true)
			return conn, nil
		}
		if !d.known.Load() || ctx.Err() != nil || d.stay.Err() != nil || time.Now().After(giveUp) {
			return nil, err
		}
		d.log.DebugContext(ctx, "the Docker daemon is waited for", slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-d.stay.Done():
		}
	}
}
