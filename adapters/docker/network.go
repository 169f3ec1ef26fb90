package docker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// Egress is how far the network of a task reaches. Whatever it is, other tasks
// and the metadata services of clouds are out of reach.
type Egress string

// The reaches, from the farthest.
const (
	EgressOpen     Egress = "open"     // all that the host reaches, and the host
	EgressInternet Egress = "internet" // public addresses alone
	EgressNone     Egress = "none"     // nothing
)

// rank orders reaches, the farthest last.
func (e Egress) rank() int {
	return map[Egress]int{EgressNone: 0, EgressInternet: 1, EgressOpen: 2}[e]
}

// narrow returns the egress that a task gets which asks for one.
func (e Egress) narrow(asked Egress, pool string) (Egress, error) {
	if asked == "" {
		return e, nil
	}
	if asked.rank() > e.rank() {
		return "", fault.Malformedf("payload.network: %s is not available on worker pool %s, where networks of tasks reach no farther than %s", asked, pool, e)
	}
	return asked, nil
}

// bits is the length of the prefix of a task's network: a gateway, a task, and
// what every network needs.
const bits = 29

// networks makes a network for each task. To make one takes longer than to
// start a task, so that each is used again, by one task after the other.
type networks struct {
	e        *Engine
	firewall *firewall

	mu     sync.Mutex
	free   map[Egress][]string // IDs
	next   netip.Prefix        // to be tried
	closed bool
}

// newNetworks has the first networks made in the background.
func newNetworks(ctx context.Context, e *Engine) (*networks, error) {
	n := &networks{e: e, free: map[Egress][]string{}}
	addresses := e.config.Addresses.Masked()
	n.next = netip.PrefixFrom(addresses.Addr(), bits)
	if !addresses.Addr().Is4() || addresses.Bits() > bits-2 {
		return nil, fmt.Errorf("addresses for networks: %s is not an IPv4 network with a prefix of at most %d bits", addresses, bits-2)
	}
	if e.config.Egress == EgressNone {
		return n, nil
	}
	var err error
	if n.firewall, err = newFirewall(ctx, e.config.Instance); err != nil {
		return nil, err
	}
	e.background.Go(func() {
		for range min(e.config.Capacity, 8) {
			if e.ctx.Err() != nil {
				return
			}
			id, err := n.create(e.ctx, e.config.Egress)
			if err != nil {
				e.log.WarnContext(e.ctx, "make a network ahead", slog.Any("error", err))
				return
			}
			n.release(e.config.Egress, id)
		}
	})
	return n, nil
}

// acquire returns the ID of a network that no other container is in.
func (n *networks) acquire(ctx context.Context, egress Egress) (string, error) {
	if egress == EgressNone {
		return network.NetworkNone, nil
	}
	n.mu.Lock()
	if free := n.free[egress]; len(free) > 0 {
		id := free[len(free)-1]
		n.free[egress] = free[:len(free)-1]
		n.mu.Unlock()
		return id, nil
	}
	n.mu.Unlock()
	return n.create(ctx, egress)
}

// release takes a network back, in which no container is running any more.
func (n *networks) release(egress Egress, id string) {
	if egress == EgressNone || id == "" {
		return
	}
	n.mu.Lock()
	if !n.closed {
		n.free[egress] = append(n.free[egress], id)
		id = ""
	}
	n.mu.Unlock()
	if id != "" {
		n.e.trash.network(id)
	}
}

// create makes a network with the next addresses that nothing on the host uses.
// It goes on when ctx is canceled, lest there be a network that nobody knows of.
func (n *networks) create(ctx context.Context, egress Egress) (string, error) {
	ctx, cancel := n.e.call(ctx)
	defer cancel()
	for range 1 << (bits - n.e.config.Addresses.Bits()) {
		subnet := n.subnet()
		bridge := n.firewall.bridge(egress)
		result, err := n.e.daemon.NetworkCreate(ctx, "taskcluster-"+strings.ToLower(rand.Text()), client.NetworkCreateOptions{
			Driver: "bridge",
			IPAM:   &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}},
			Options: map[string]string{
				"com.docker.network.bridge.name":       bridge,
				"com.docker.network.bridge.enable_icc": "false",
			},
			Labels: n.e.labels(),
		})
		if err == nil {
			return result.ID, nil
		}
		if !overlaps(err) {
			return "", fmt.Errorf("make a network: %w", err)
		}
	}
	return "", errors.New("make a network: all of " + n.e.config.Addresses.String() + " is in use")
}

// overlaps reports whether a network could not be made since another one has its
// addresses.
func overlaps(err error) bool {
	return strings.Contains(err.Error(), "overlap") || strings.Contains(err.Error(), "conflicts with network")
}

// subnet returns the next addresses to try.
func (n *networks) subnet() netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.next
	address := s.Addr().As4()
	binary.BigEndian.PutUint32(address[:], binary.BigEndian.Uint32(address[:])+1<<(32-bits))
	next := netip.AddrFrom4(address)
	pool := n.e.config.Addresses.Masked()
	if !pool.Contains(next) {
		next = pool.Addr()
	}
	n.next = netip.PrefixFrom(next, bits)
	return s
}

// close removes all networks that are free, and has the others removed when they
// are released.
func (n *networks) close() error {
	n.mu.Lock()
	n.closed = true
	free := n.free
	n.free = map[Egress][]string{}
	n.mu.Unlock()
	for _, ids := range free {
		for _, id := range ids {
			n.e.trash.network(id)
		}
	}
	return n.firewall.close()
}
