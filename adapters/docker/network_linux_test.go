package docker_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// Addresses of the host's neighbor, and of the host. The public one is for
// documentation, and no test sends anything out of its namespace.
const (
	public  = "198.51.100.10"
	private = "192.168.77.2"
	host    = "192.168.77.1"
)

// metadata are the addresses of metadata services.
var metadata = []string{"169.254.169.254", "168.63.129.16", "100.100.100.200"}

// metadata6 is that of EC2 over IPv6.
const metadata6 = "fd00:ec2::254"

// ip runs a command of the network's tools.
func ip(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := exec.CommandContext(context.Background(), args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v: %s", args, err, out)
	}
}

// neighborhood connects the daemon's host to a neighbor that has all of the
// addresses and answers on port 80 at each, as the host does at its own.
func neighborhood(t *testing.T) {
	t.Helper()
	ip(t, "ip", "netns", "add", "neighbor")
	t.Cleanup(func() { ip(t, "ip", "netns", "del", "neighbor") })
	ip(t, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", "neighbor")
	t.Cleanup(func() { ip(t, "ip", "link", "del", "v0") })
	ip(t, "ip", "addr", "add", host+"/24", "dev", "v0")
	ip(t, "ip", "link", "set", "v0", "up")
	inside := []string{"ip", "netns", "exec", "neighbor"}
	ip(t, append(inside, "ip", "addr", "add", private+"/24", "dev", "v1")...)
	ip(t, append(inside, "ip", "link", "set", "v1", "up")...)
	ip(t, append(inside, "ip", "link", "set", "lo", "up")...)
	for _, a := range append([]string{public}, metadata...) {
		ip(t, append(inside, "ip", "addr", "add", a+"/32", "dev", "lo")...)
		ip(t, "ip", "route", "add", a+"/32", "via", private)
	}
	ip(t, "ip", "-6", "addr", "add", "fd77::1/64", "dev", "v0", "nodad")
	ip(t, append(inside, "ip", "-6", "addr", "add", "fd77::2/64", "dev", "v1", "nodad")...)
	ip(t, append(inside, "ip", "-6", "addr", "add", metadata6+"/128", "dev", "lo")...)
	ip(t, "ip", "-6", "route", "add", metadata6+"/128", "via", "fd77::2")
	for _, on := range [][]string{nil, inside} {
		ctx, stop := context.WithCancel(context.Background())
		args := slices.Concat(on, []string{"busybox", "httpd", "-f", "-p", "80", "-h", t.TempDir()})
		server := exec.CommandContext(ctx, args[0], args[1:]...)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stop()
			_ = server.Wait() // it was killed
		})
	}
	for _, a := range append([]string{public, private, host, metadata6}, metadata...) {
		answers(t, a)
	}
}

// answers waits until there is an answer from an address.
func answers(t *testing.T, address string) {
	t.Helper()
	for {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(address, "80"))
		if err == nil {
			_ = c.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// probe returns a command that says of each address whether it answers.
func probe(addresses ...string) string {
	var script strings.Builder
	for _, a := range addresses {
		fmt.Fprintf(&script, "(nc -w 2 %s 80 </dev/null >/dev/null 2>&1 && echo %s: yes || echo %s: no) & ", a, a, a)
	}
	return script.String() + "wait"
}

func TestEgress(t *testing.T) {
	neighborhood(t)
	for egress, reach := range map[docker.Egress]map[string]bool{
		docker.EgressOpen:     {public: true, private: true, host: true},
		docker.EgressInternet: {public: true},
		docker.EgressNone:     {},
	} {
		t.Run(string(egress), func(t *testing.T) {
			e := open(t, docker.Config{Egress: egress, Capacity: 2})
			other := newRecord()
			s := begin(t, e, shell("echo address: $(hostname -i 2>/dev/null); httpd -f -p 80 -h /"), other)
			defer func() { _ = s.Abort(context.Background()) }()
			other.has(t.Context(), t, "address:")
			addresses := append([]string{public, private, host, metadata6}, metadata...)
			if egress != docker.EgressNone {
				other.has(t.Context(), t, "address: 10.213.")
				_, after, _ := strings.Cut(other.String(), "address: 10.213.")
				addresses = append(addresses, "10.213."+strings.Fields(after)[0])
			}
			_, log := run(t, e, shell(probe(addresses...)))
			for _, a := range addresses {
				want := fmt.Sprintf("%s: %s\n", a, map[bool]string{true: "yes", false: "no"}[reach[a]])
				if !strings.Contains(log.String(), want) {
					t.Errorf("want %q in:\n%s", want, log)
				}
			}
		})
	}
}

func TestTasksNarrowTheirNetwork(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressInternet, Pool: "proj/linux"})
	p := shell("ls /sys/class/net | wc -l")
	p["network"] = "none"
	_, log := run(t, e, p)
	if !strings.Contains(log.String(), "\n1\n") {
		t.Errorf("a task without a network has one:\n%s", log)
	}
	p["network"] = "open"
	if _, err := e.NewBuilder(t.Context(), options(t, p, newRecord())); err == nil || !strings.Contains(err.Error(), "payload.network: open is not available on worker pool proj/linux") {
		t.Errorf("got %v", err)
	}
}

// The daemon makes no firewall rules of its own, which would take minutes.
func TestNetworksForAsManyTasksAsAWorkerMayHave(t *testing.T) {
	t.Parallel()
	const most = 250
	e := openOn(t, another(t), docker.Config{Egress: docker.EgressInternet})
	release, err := e.Networks(t.Context(), most)
	if err != nil {
		t.Error(err)
	}
	release()
}

func TestManyTasksAtOnceHaveNetworksOfTheirOwn(t *testing.T) {
	const tasks = 34 // more than Docker's own addresses are good for
	e := open(t, docker.Config{Egress: docker.EgressInternet, Capacity: tasks})
	var mu sync.Mutex
	var wg sync.WaitGroup
	addresses := map[string]bool{}
	sandboxes := make([]engine.Sandbox, tasks)
	for i := range tasks {
		wg.Go(func() {
			log := newRecord()
			s := begin(t, e, shell("echo address: $(hostname -i); sleep 1000"), log)
			sandboxes[i] = s
			log.has(t.Context(), t, "address: 10.213.")
			_, after, _ := strings.Cut(log.String(), "address: 10.213.")
			mu.Lock()
			defer mu.Unlock()
			addresses[strings.Fields(after)[0]] = true
		})
	}
	wg.Wait()
	if len(addresses) != tasks {
		t.Errorf("%d tasks have %d addresses", tasks, len(addresses))
	}
	for _, s := range sandboxes {
		wg.Go(func() {
			if err := s.Abort(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
