// Package urlfetch fetches content by URL, on behalf of tasks but with the
// worker's place in the network: it does not go where only the worker may.
package urlfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/pkg/download"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

// Config says where content may come from.
type Config struct {
	Loopback bool // whether from the worker's own host, too
}

// Source implements [fetch.Source] for URLs.
type Source struct{ http *http.Client }

var _ fetch.Source = (*Source)(nil)

// New returns a source. The function closes its connections.
func New(c Config) (*Source, func()) {
	dialer := &net.Dialer{Timeout: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		return c.check(address)
	}}
	transport := &http.Transport{
		// A proxy would be asked for what is checked here.
		Proxy: nil, DialContext: dialer.DialContext, ResponseHeaderTimeout: time.Minute, DisableKeepAlives: true,
	}
	return &Source{http: &http.Client{Transport: transport}}, transport.CloseIdleConnections
}

var errForbidden = errors.New("this worker fetches nothing from that address")

// metadata are addresses of the metadata services of clouds that are not
// link-local.
var metadata = [...]string{"168.63.129.16", "100.100.100.200", "fd00:ec2::254"}

// check returns an error for an address, host and port, to which no connection
// may be made. It sees what names were resolved to.
func (c Config) check(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errForbidden, address)
	}
	a := ap.Addr().Unmap().WithZone("")
	forbidden := a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() && !c.Loopback
	for _, m := range metadata {
		forbidden = forbidden || a == netip.MustParseAddr(m)
	}
	if forbidden {
		return fmt.Errorf("%w: %s", errForbidden, a)
	}
	return nil
}

// Resolve implements fetch.Source. Nobody but the server knows who may read
// what, so that content of a known hash is one for all.
func (s *Source) Resolve(_ context.Context, r fetch.Reference, _ func() task.Credentials) (fetch.Content, error) {
	if r.URL == "" {
		return fetch.Content{}, fmt.Errorf("urlfetch: %s: %w", r, errors.ErrUnsupported)
	}
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fetch.Content{}, fault.Malformedf("%s is not a URL of http or https", r)
	}
	c := fetch.Content{Name: path.Base(u.Path), Open: func(ctx context.Context) (io.ReadCloser, int64, error) { return s.open(ctx, r) }}
	if r.SHA256 != "" {
		c.Key = "sha256:" + strings.ToLower(r.SHA256)
	}
	return c, nil
}

func (s *Source) open(ctx context.Context, r fetch.Reference) (io.ReadCloser, int64, error) {
	content, size, err := download.Content{
		Client: s.http, URL: func(context.Context) (string, error) { return r.URL, nil }, SHA256: r.SHA256,
		Final: func(err error) bool { return errors.Is(err, errForbidden) },
	}.Open(ctx)
	if err != nil {
		return nil, 0, classify(err, r)
	}
	return &reader{content, r}, size, nil
}

// reader turns errors into faults.
type reader struct {
	io.ReadCloser
	ref fetch.Reference
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(err, r.ref)
	}
	return n, err
}

func classify(err error, r fetch.Reference) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, download.ErrHash) {
		return fault.Failuref(err, "%s is not what it should be: %v", r, err)
	}
	if errors.Is(err, errForbidden) {
		return fault.Malformedf("%s cannot be fetched: %v", r, errForbidden)
	}
	if s, ok := errors.AsType[*download.StatusError](err); ok && !s.Temporary() {
		return fault.Malformedf("%s cannot be fetched: the server says %v", r, s)
	}
	return fault.Unavailablef(err, "%s cannot be fetched: the transfer has failed again and again", r)
}
