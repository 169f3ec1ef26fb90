package docker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
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

// place is a network for one task at a time.
type place struct {
	egress  Egress
	network string // ID

	// resting is the ID of a container that rests in the network, whose
	// network namespace the task's container joins: to make one anew takes a
	// quarter of the time that a task takes to start. Empty if there is none.
	resting string
}

// mode returns what puts a container into the place.
func (p place) mode() container.NetworkMode {
	switch {
	case p.egress == EgressNone:
		return network.NetworkNone
	case p.resting != "":
		return container.NetworkMode("container:" + p.resting)
	default:
		return container.NetworkMode(p.network)
	}
}

// mostResting bounds how many containers rest: each takes some memory.
const mostResting = 8

// networks makes a place for each task. To make one takes longer than to start a
// task, so that each is used again, by one task after the other.
type networks struct {
	e        *Engine
	firewall *firewall
	image    string // that containers rest in; empty if none do

	mu      sync.Mutex
	free    []place
	resting int          // containers, in free places or not
	next    netip.Prefix // to be tried
	closed  bool
}

func newNetworks(e *Engine) *networks { return &networks{e: e} }

// occupy notes that a task of an earlier worker is in a place.
func (n *networks) occupy(p place) {
	if p.resting != "" {
		n.resting++
	}
}

// open has the first places made in the background.
func (n *networks) open(ctx context.Context) error {
	addresses := n.e.config.Addresses.Masked()
	n.next = netip.PrefixFrom(addresses.Addr(), bits)
	if !addresses.Addr().Is4() || addresses.Bits() > bits-2 {
		return fmt.Errorf("addresses for networks: %s is not an IPv4 network with a prefix of at most %d bits", addresses, bits-2)
	}
	if n.e.config.Egress == EgressNone {
		return nil
	}
	var err error
	if n.firewall, err = newFirewall(ctx, n.e.config.Instance); err != nil {
		return err
	}
	if n.image, err = n.e.restImage(ctx); err != nil {
		return err
	}
	ahead := min(n.e.config.Capacity, mostResting) - n.resting
	n.e.background.Go(func() {
		for range ahead {
			if n.e.ctx.Err() != nil {
				return
			}
			p, err := n.make(n.e.ctx, n.e.config.Egress, n.reserve())
			if err != nil {
				n.e.log.WarnContext(n.e.ctx, "make a network ahead", slog.Any("error", err))
				return
			}
			n.release(p, false)
		}
	})
	return nil
}

// reserve reports whether another container may rest, and counts it.
func (n *networks) reserve() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.image == "" || n.resting >= mostResting {
		return false
	}
	n.resting++
	return true
}

// acquire returns a place that no other task is in. A container that is to have
// names or powers of its own in its network cannot share a namespace.
func (n *networks) acquire(ctx context.Context, egress Egress, own bool) (place, error) {
	if egress == EgressNone {
		return place{egress: egress}, nil
	}
	for {
		p, ok := n.take(egress, own)
		if !ok {
			return n.make(ctx, egress, !own && n.reserve())
		}
		if p.resting == "" || n.rests(ctx, p) {
			return p, nil
		}
		n.drop(p) // the daemon was restarted, say
	}
}

// take returns a free place, one with a resting container if there is any.
func (n *networks) take(egress Egress, own bool) (place, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	best := -1
	for i, p := range n.free {
		if p.egress == egress && (p.resting == "" || !own) && (best < 0 || p.resting != "") {
			best = i
		}
	}
	if best < 0 {
		return place{}, false
	}
	p := n.free[best]
	n.free = slices.Delete(n.free, best, best+1)
	return p, true
}

// rests reports whether the container of a place is still running.
func (n *networks) rests(ctx context.Context, p place) bool {
	r, err := n.e.daemon.ContainerInspect(ctx, p.resting, client.ContainerInspectOptions{})
	return err == nil && r.Container.State != nil && r.Container.State.Running
}

// make makes a place.
func (n *networks) make(ctx context.Context, egress Egress, resting bool) (place, error) {
	p := place{egress: egress}
	var err error
	if p.network, err = n.create(ctx, egress); err == nil && resting {
		p.resting, err = n.e.startRest(ctx, n.image, p.network)
	}
	if err != nil {
		n.uncount(resting)
		n.e.trash.place(place{network: p.network})
		return place{}, err
	}
	return p, nil
}

func (n *networks) uncount(resting bool) {
	if resting {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.resting--
	}
}

// release takes a place back, in which no task's container is running any more.
// One that a task may have changed is spoiled.
func (n *networks) release(p place, spoiled bool) {
	if p.network == "" {
		return
	}
	n.mu.Lock()
	spoiled = spoiled && p.resting != "" || n.closed
	if !spoiled {
		n.free = append(n.free, p)
	}
	n.mu.Unlock()
	if spoiled {
		n.drop(p)
	}
}

// drop removes a place.
func (n *networks) drop(p place) {
	if p.resting != "" {
		n.uncount(true)
	}
	n.e.trash.place(p)
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
	for _, words := range []string{"overlap", "conflicts with network", "already used on the host"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
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

// close removes all places that are free, and has the others removed when they
// are released. What keeps orphans from what they must not reach stays.
func (n *networks) close() error {
	n.mu.Lock()
	n.closed = true
	free := n.free
	n.free = nil
	n.mu.Unlock()
	for _, p := range free {
		n.drop(p)
	}
	n.e.mu.Lock()
	defer n.e.mu.Unlock()
	if len(n.e.orphans) > 0 {
		return nil
	}
	return n.firewall.close()
}
