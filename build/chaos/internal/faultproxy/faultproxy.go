// Package faultproxy is a network that fails on demand: a proxy in front of a
// deployment, which refuses, hangs, breaks off and lies in the ways of networks
// and overloaded services.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is what befalls a request, or all of them.
type Fault string

// The faults of requests.
const (
	Error500   Fault = "500"          // the service fails before it has done anything
	Error503   Fault = "503"          // likewise
	Error429   Fault = "429"          // too many requests, with a time to wait
	Hang       Fault = "hang"         // no answer comes until the fault is over
	Refuse     Fault = "refuse"       // the connection breaks before the service has the request
	Lose       Fault = "lose"         // the service does what it is asked, and its answer is lost
	Truncate   Fault = "truncate"     // half of the answer's body comes
	Slow       Fault = "slow"         // the answer takes its time
	Cut        Fault = "cut"          // half of the request's body gets to the service
	Credential Fault = "unauthorized" // signatures are refused
	Skew       Fault = "skew"         // the service's clock differs from the worker's
	Down       Fault = "down"         // nobody listens
)

// Faults returns all faults.
func Faults() []Fault {
	return []Fault{Error500, Error503, Error429, Hang, Refuse, Lose, Truncate, Slow, Cut, Credential, Skew, Down}
}

// Proxy forwards requests to a deployment. It is safe for concurrent use.
type Proxy struct {
	address string
	target  string
	http    http.Transport

	mu     sync.Mutex
	server *http.Server // nil while the proxy is down
	fault  Fault        // none if empty
	over   chan struct{}
	share  float64 // of requests that the fault befalls
	skew   time.Duration
	random *rand.Rand
	trap   *Trap
	hits   map[Fault]int
}

// New starts a proxy to the service at the address target. Close ends it.
func New(target string) (*Proxy, error) {
	p := &Proxy{address: "127.0.0.1:0", target: target, over: make(chan struct{}), random: rand.New(rand.NewPCG(0, 0)), hits: map[Fault]int{}} //nolint:gosec // chaos needs no secrecy
	// A connection that is used again could break for reasons of its own.
	p.http.DisableKeepAlives = true
	p.http.DisableCompression = true
	if err := p.listen(); err != nil {
		return nil, err
	}
	return p, nil
}

// URL returns the root URL of the deployment as it is seen through the proxy.
func (p *Proxy) URL() string { return "http://" + p.address }

// listen serves at the proxy's address, and keeps to it from then on.
func (p *Proxy) listen() error {
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "tcp", p.address)
	if err != nil {
		return fmt.Errorf("serve faults: %w", err)
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address, p.server = listener.Addr().String(), server
	go func() { _ = server.Serve(listener) }() // it ends with Close
	return nil
}

// Close ends the proxy and all connections.
func (p *Proxy) Close() error {
	p.mu.Lock()
	server := p.server
	p.server = nil
	p.mu.Unlock()
	p.http.CloseIdleConnections()
	if server == nil {
		return nil
	}
	return server.Close()
}

// Begin has a share of all requests meet a fault until End. The seed decides
// which of them, and by how much clocks differ, which is up to skew.
func (p *Proxy) Begin(f Fault, share float64, skew time.Duration, seed uint64) error {
	if f == Down {
		return p.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.random = rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // chaos needs no secrecy
	p.fault, p.share, p.over = f, share, make(chan struct{})
	p.skew = time.Duration((2*p.random.Float64() - 1) * float64(skew))
	return nil
}

// End ends the fault that has begun, if there is one.
func (p *Proxy) End() error {
	p.mu.Lock()
	if p.fault != "" {
		p.fault = ""
		close(p.over)
	}
	down := p.server == nil
	p.mu.Unlock()
	if down {
		return p.listen()
	}
	return nil
}

// Hits returns how many requests each fault has befallen.
func (p *Proxy) Hits() map[Fault]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.hits)
}

// meet returns the fault that a request meets, and when the fault is over.
func (p *Proxy) meet(r *http.Request) (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	switch {
	case f == "", f != Skew && p.random.Float64() >= p.share:
		return "", nil
	case f == Skew && !leases(r), f == Cut && r.ContentLength < 2, f == Credential && !renews(r):
		return "", nil
	}
	p.hits[f]++
	return f, p.over
}

// leases reports whether the answer to a request has the end of a lease.
func leases(r *http.Request) bool {
	return Claim.Matches(r) || Reclaim.Matches(r)
}

// renews reports whether a request is of those that a worker makes with
// credentials that may run out between two of them.
func renews(r *http.Request) bool {
	return leases(r) || strings.HasSuffix(r.URL.Path, "/status")
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, over := p.meet(r)
	if p.spring(r, Asked) {
		abort()
	}
	switch f {
	case Error500:
		refuse(w, http.StatusInternalServerError, "InternalServerError")
		return
	case Error503:
		refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable")
		return
	case Error429:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "TooManyRequests")
		return
	case Credential:
		refuse(w, http.StatusUnauthorized, "AuthenticationFailed")
		return
	case Hang:
		select {
		case <-over:
		case <-r.Context().Done():
		}
		abort()
	case Refuse:
		abort()
	case Cut:
		// The service finds fewer bytes than were announced.
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), broken{}), r.Body}
	case Slow:
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			abort()
		}
	default: // it befalls the answer
	}
	p.forward(w, r, f)
}

// forward has the service answer.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, f Fault) {
	// The service answers even if the worker is killed meanwhile, as it would
	// across a network.
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.target, ""
	// Who waits for work must not get it after it is gone: the service cannot
	// know better, but a worker that was killed closes its connection.
	if Claim.Matches(r) {
		out = out.WithContext(r.Context())
	}
	resp, err := p.http.RoundTrip(out)
	if err != nil {
		abort()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || p.spring(r, Done) || f == Lose {
		abort()
	}
	if f == Skew {
		body = p.skewed(body)
	}
	maps.Copy(w.Header(), resp.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(resp.StatusCode)
	if f == Truncate && len(body) > 0 {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		abort()
	}
	if _, err := w.Write(body); err != nil {
		return
	}
	_ = http.NewResponseController(w).Flush()
	p.spring(r, Answered)
}

// abort breaks the connection.
func abort() { panic(http.ErrAbortHandler) }

// refuse answers as a service of Taskcluster does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"code": %q, "message": "a fault was injected"}`, code)
}

// broken is the end of a body that breaks off.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }
